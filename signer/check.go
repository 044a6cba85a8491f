package signer

// Check refuses a request that SignRequest would refuse for what it is: what
// the purpose does not permit, or what is not for this key. It asks neither the
// store nor the device.
func (s *Signer) Check(r *Request) error { return r.check(s.key, s.open) }

// Device returns the name of the device that the version was made in.
func (s *Signer) Device() string { return s.v.Device }

// Device returns the name of the device that the version was made in.
func (x *KeyExchanger) Device() string { return x.v.Device }

// Version returns the number of the version that agrees.
func (x *KeyExchanger) Version() int { return x.v.Number }

// Key returns the record of the key as it was at the look-up.
func (x *KeyExchanger) Key() *Key { return x.key }

// Device returns the name of the device that the version was made in.
func (m *MAC) Device() string { return m.v.Device }

// Key returns the record of the key as it was at the look-up.
func (m *MAC) Key() *Key { return m.key }
