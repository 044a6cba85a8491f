// Package ohttp serves Oblivious HTTP for the assets of rooms
// (draft-ietf-mimi-protocol-06 section 5.10.3, RFC 9458): a [Gateway], which
// knows what is fetched and not by whom, and a [Relay], which knows who fetches
// and not what.
//
// A gateway fetches as proxyDownload does, from the asset hosts that are
// configured, and nothing else of a request than its URL counts. A relay passes
// on to the gateways that are configured and to nothing else. The gateway of a
// provider is in its directory under ohttpGateway, and its keys are where
// RFC 9540 has them; a client gets them from its relay, so that a gateway cannot
// tell clients apart by giving each another key.
package ohttp
