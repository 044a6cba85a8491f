package content

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math"
)

// MessageIDSize is the octets of a MessageID.
const MessageIDSize = 32

// hashSHA256 is sha-256 in the Named Information Hash Algorithm registry.
const hashSHA256 = 1

// A MessageID names one message in one room: the octet 1, for SHA-256, and the
// first 31 octets of a hash over the sender, the room and the message.
type MessageID [MessageIDSize]byte

func (id MessageID) String() string { return hex.EncodeToString(id[:]) }

// ComputeID returns the ID of the encoded message whose salt is given, sent by
// a user to a room:
//
//	hash_output = SHA-256( uint16 len(senderUri) || senderUri ||
//	                       uint16 len(roomUri) || roomUri || message || salt )
//	messageId   = 0x01 || hash_output[0..30]
//
// The octets hashed are those sent or received, never an encoding made anew.
// SHA-256 is used whatever the group's cipher suite.
func ComputeID(senderURI, roomURI string, encoded []byte, salt [SaltSize]byte) (MessageID, error) {
	if len(senderURI) > math.MaxUint16 || len(roomURI) > math.MaxUint16 {
		return MessageID{}, refuse(CodeURILength, "message ID", "URI of more than %d octets", math.MaxUint16)
	}
	h := sha256.New()
	var buf [2]byte
	for _, uri := range []string{senderURI, roomURI} {
		binary.BigEndian.PutUint16(buf[:], uint16(len(uri)))
		h.Write(buf[:])
		h.Write([]byte(uri))
	}
	h.Write(encoded)
	h.Write(salt[:])
	var sum [sha256.Size]byte
	h.Sum(sum[:0])
	id := MessageID{hashSHA256}
	copy(id[1:], sum[:31])
	return id, nil
}
