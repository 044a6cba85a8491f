package ohttp

// SealResponseWith is SealResponse with a nonce that is not random, and
// Secret what the context exported, for the vectors.
func (c *Context) SealResponseWith(nonce, response []byte) ([]byte, error) {
	return c.sealResponse(nonce, response)
}

func (c *Context) Secret() []byte { return c.secret }
