package enrol

var (
	ParseBegin  = parseBegin
	ParseFinish = parseFinish
)
