package dcbor

// An Arena is memory for Values that are needed for a moment and then make room
// for others. The zero Arena is ready; one goroutine at a time may use it.
type Arena struct{ values []Value }

// maxKept are the Values that an Arena keeps for later at most: 512 KiB.
const maxKept = 1 << 13

// Make returns n Values that do not exist. They are good until Reset.
func (a *Arena) Make(n int) []Value {
	from := len(a.values)
	if cap(a.values)-from < n {
		a.values, from = make([]Value, 0, max(n, 2*cap(a.values), 64)), 0
	}
	a.values = a.values[:from+n]
	return a.values[from : from+n : from+n]
}

// Tag is NewTag in the Arena.
func (a *Arena) Tag(n uint64, content Value) Value {
	kids := a.Make(1)
	kids[0] = content
	return Value{kind: Tag, n: n, kids: kids}
}

// Reset takes back what Make and DecodeIn have given: those Values, and what is
// in them, must not be used any more.
func (a *Arena) Reset() {
	clear(a.values)
	a.values = a.values[:0]
	if cap(a.values) > maxKept {
		a.values = nil
	}
}
