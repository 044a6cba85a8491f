package registry

// SetStep has f called between any two writes.
func (s *Store) SetStep(f func(name string) error) { s.step = f }
