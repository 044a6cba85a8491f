package hsm

import (
	"context"
	"time"

	"github.com/miekg/pkcs11"
)

// Health is what a look at a token found.
type Health struct {
	Token    TokenInfo     `json:"token"`
	LoggedIn bool          `json:"loggedIn"`
	Keys     int           `json:"keys"` // private and secret keys known since the login
	Sessions int           `json:"sessions"`
	Took     time.Duration `json:"took"`
	// Workers is how many worker processes serve the token, 0 in-process.
	Workers   int `json:"workers"`
	WorkersUp int `json:"workersUp"`
}

// health looks at the login, at the token and at one key. Error codes alone do
// not tell: a vanished token looks like a destroyed key in some modules. Only
// where the key does not answer is the token searched, which takes SoftHSM two
// files for each object there: 0.5 s with 10,000 keys.
func (t *localToken) health(ctx context.Context) (Health, error) {
	begin := time.Now()
	h := Health{Sessions: cap(t.pool.places)}
	err := t.run(ctx, 1, func(st *login, sh pkcs11.SessionHandle) error {
		if err := t.examineLogin(st, sh); err != nil {
			return err
		}
		info, err := t.present(st)
		if err != nil {
			return err
		}
		if err := t.examineKey(st, sh); err != nil {
			return err
		}
		info.KeyTypes = st.info.KeyTypes
		h.Token, h.LoggedIn, h.Keys = info, st.user, st.objects.size()
		return nil
	})
	h.Took = time.Since(begin)
	return h, err
}
