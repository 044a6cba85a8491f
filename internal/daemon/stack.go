package daemon

import "net/http"

// stackRoom is what the stack of a request's goroutine is made to have, in
// octets; the runtime makes 16 KiB of it.
const stackRoom = 12 << 10

// roomy has the stack of a request's goroutine grow at once, where it has few
// frames. HTTP/2 begins a goroutine for each request, with 2 or 4 KiB, and
// database, device and the verification of a signature take several times that: a
// stack that doubles each time it is full is copied each time with all that stands
// on it by then.
func roomy(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		growStack(len(r.Method))
		next.ServeHTTP(w, r)
	})
}

//go:noinline
func growStack(i int) byte {
	var room [stackRoom]byte
	return room[i%stackRoom]
}
