package provider

// SetFault makes the service stop at the named steps with an error. It is set
// before the service is used.
func (s *Service) SetFault(f func(step string) error) { s.fault = f }
