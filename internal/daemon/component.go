package daemon

import (
	"context"
	"net/http"
)

// A Component is one service of the process. Its constructor must not need a
// device: a process whose token is away starts, is not ready, and becomes ready
// when the token is back.
type Component interface {
	// Mounts says which handlers stand on which listeners.
	Mounts() []Mount
	// Run works in the background until ctx ends, and returns then. That it
	// returns an error earlier ends the process. A component without such work
	// waits for ctx.
	Run(ctx context.Context) error
	// Health says how the component does. ctx bounds it to a few seconds.
	Health(ctx context.Context) []Check
	// Reload reads again what can be replaced while serving: policies, trust,
	// certificates. It changes nothing; apply does, cannot fail, and is called
	// when every component and listener could read its own. A nil apply means
	// that there is nothing to change.
	Reload(ctx context.Context) (apply func(), err error)
}

// A Mount is a handler on a listener.
type Mount struct {
	Listener string // name in the configuration
	Pattern  string // as http.ServeMux wants it, such as "/v1/" or "GET /crl"
	Handler  http.Handler
	// Path, if set, makes the request that is matched with Pattern, where that is
	// not to be the one that came: a ServeMux cleans paths.
	Path func(*http.Request) *http.Request
}

// A Named component has the name that logs and health show.
type Named struct {
	Name string
	Component
}
