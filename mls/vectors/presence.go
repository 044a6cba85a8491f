package vectors

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
)

// requireMembers checks that a JSON value has every member of the structure
// that it is decoded to: what is absent would be checked against zero, or not
// at all. A member that is a pointer is an optional of the format and may be
// absent or null; a list may be null.
func requireMembers(raw json.RawMessage, t reflect.Type) error {
	switch {
	case t == reflect.TypeFor[hexBytes]():
		return requireValue(raw)
	case t.Kind() == reflect.Pointer:
		if isNull(raw) {
			return nil
		}
		return requireMembers(raw, t.Elem())
	case t.Kind() == reflect.Slice:
		return requireElements(raw, t.Elem())
	case t.Kind() == reflect.Struct:
		return requireFields(raw, t)
	}
	return requireValue(raw)
}

func requireElements(raw json.RawMessage, t reflect.Type) error {
	var list []json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil {
		return err
	}
	for i, v := range list {
		if err := requireMembers(v, t); err != nil {
			return fmt.Errorf("%d: %w", i, err)
		}
	}
	return nil
}

func requireFields(raw json.RawMessage, t reflect.Type) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil {
		return err
	}
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		v, present := members[name]
		if !present {
			if f.Type.Kind() == reflect.Pointer {
				continue
			}
			return fmt.Errorf("no member %s", name)
		}
		if err := requireMembers(v, f.Type); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func requireValue(raw json.RawMessage) error {
	if isNull(raw) {
		return errors.New("null")
	}
	return nil
}

func isNull(raw json.RawMessage) bool { return bytes.Equal(raw, []byte("null")) }
