package content_test

import (
	"crypto/rand"
	"fmt"
	"time"

	"github.com/privyseal/privyseal/mimi/content"
)

// Alice writes, Bob receives and answers.
func Example() {
	const user, room = "mimi://example.com/u/alice", "mimi://example.com/r/clubhouse"
	m := &content.Message{
		Extensions: content.NewExtensions(user, room),
		Body: content.NestedPart{
			Disposition: content.Render,
			Content:     &content.SinglePart{ContentType: "text/plain;charset=utf-8", Content: []byte("Free pizza")},
		},
	}
	rand.Read(m.Salt[:])
	encoded, err := m.Encode()
	if err != nil {
		fmt.Println(err)
		return
	}

	now := time.Now()
	got, err := content.Receive(encoded, content.Derived{SenderURI: user, RoomURI: room, Accepted: now}, now)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s\n", got.Message.Body.Content.(*content.SinglePart).Content)
	answer := content.Message{InReplyTo: &got.ID}
	fmt.Println(*answer.InReplyTo == got.ID, got.ID[0])
	// Output:
	// Free pizza
	// true 1
}
