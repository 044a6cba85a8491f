package client_test

import (
	"strings"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/policy"
)

func rename(m *mimi.RoomMetaData) { m.RoomName = "Renamed" }

func strictRoom() client.RoomOptions {
	return client.RoomOptions{Roles: policy.StrictRoles(), Role: 3, Metadata: mimi.RoomMetaData{RoomName: "Strict"}}
}

func contains(s, part string) bool { return strings.Contains(s, part) }
