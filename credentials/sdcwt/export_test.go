package sdcwt

// Item returns the byte string item of a disclosure, which is what is hashed.
func Item(d *Disclosure) []byte { return d.item }
