package admit

import (
	"fmt"
	"time"
)

// An Overload says that there is no room for a request now. Nothing was done.
type Overload struct {
	What       string // such as "the budget of the caller" or "the queue of the device"
	RetryAfter time.Duration
}

func (o *Overload) Error() string {
	return fmt.Sprintf("%s is used up; try again in %v", o.What, o.RetryAfter.Round(time.Millisecond))
}
