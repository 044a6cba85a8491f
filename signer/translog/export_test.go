package translog

// WitnessClient is what Open has witnesses asked with.
var WitnessClient = witnessClient
