package trust

import "github.com/privyseal/privyseal/internal/mimiuri"

// URI is a mimi: URI.
type URI = mimiuri.URI
