package enrol

var (
	ParseBegin  = parseBegin
	ParseFinish = parseFinish

	CertsOnly      = certsOnly
	ParseCertsOnly = parseCertsOnly
)
