// Package openapi writes the OpenAPI 3.1 document of the JSON form of an API
// from the descriptors of its proto: Connect's unary calls are HTTP POST to
// /package.Service/Method with the request as protobuf's JSON.
package openapi

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

//go:embed openapi.json
var document []byte

// Document returns the published document of the signing service. The caller
// must not change it.
func Document() []byte { return document }

type object = map[string]any

// Generate writes the document of all services in a file. Descriptions come
// from the comments of the proto where the descriptors have them.
func Generate(file protoreflect.FileDescriptor) ([]byte, error) {
	g := &generator{schemas: object{}}
	paths := object{}
	var tags []any
	for i := range file.Services().Len() {
		s := file.Services().Get(i)
		tags = append(tags, described(object{"name": string(s.Name())}, s))
		for j := range s.Methods().Len() {
			m := s.Methods().Get(j)
			if m.IsStreamingClient() || m.IsStreamingServer() {
				return nil, fmt.Errorf("openapi: %s streams", m.FullName())
			}
			paths[fmt.Sprintf("/%s/%s", s.FullName(), m.Name())] = object{"post": g.operation(s, m)}
		}
	}
	g.schemas["Error"] = errorSchema
	doc := object{
		"openapi": "3.1.0",
		"info": described(object{"title": "Privyseal signing service", "version": version(file),
			"license": object{"name": "Apache-2.0", "identifier": "Apache-2.0"}}, file.Syntax(), fileComment(file)),
		"tags": tags, "paths": paths,
		"components": object{"schemas": g.schemas, "securitySchemes": object{"mutualTLS": object{"type": "mutualTLS",
			"description": "A certificate of the service's own CA, from AccessService.Enroll."}}},
		"security": []any{object{"mutualTLS": []any{}}},
	}
	b, err := json.MarshalIndent(doc, "", "  ")
	return append(b, '\n'), err
}

func version(file protoreflect.FileDescriptor) string {
	parts := strings.Split(string(file.Package()), ".")
	return parts[len(parts)-1]
}

// errorSchema is Connect's error, whose details are protobuf messages.
var errorSchema = object{
	"type": "object",
	"properties": object{
		"code":    object{"type": "string", "description": `Connect's name of the code, such as "permission_denied".`},
		"message": object{"type": "string"},
		"details": object{"type": "array", "items": object{"type": "object", "properties": object{
			"type":  object{"type": "string", "examples": []any{"google.rpc.ErrorInfo"}},
			"value": object{"type": "string", "contentEncoding": "base64"},
			"debug": object{"description": "The detail in readable form."},
		}}},
	},
	"required": []any{"code"},
}

type generator struct{ schemas object }

func (g *generator) operation(s protoreflect.ServiceDescriptor, m protoreflect.MethodDescriptor) object {
	op := described(object{
		"operationId": fmt.Sprintf("%s.%s", s.Name(), m.Name()),
		"tags":        []any{string(s.Name())},
		"requestBody": object{"required": true, "content": g.content(m.Input())},
		"responses": object{
			"200":     object{"description": "Success.", "content": g.content(m.Output())},
			"default": object{"description": "An error.", "content": jsonContent(ref("Error"))},
		},
	}, m)
	return op
}

func jsonContent(schema object) object {
	return object{"application/json": object{"schema": schema}}
}

func (g *generator) content(m protoreflect.MessageDescriptor) object {
	return jsonContent(g.message(m))
}

func ref(name string) object { return object{"$ref": "#/components/schemas/" + name} }

// message adds the schema of a message, once, and returns a reference to it.
func (g *generator) message(m protoreflect.MessageDescriptor) object {
	if m.FullName() == "google.protobuf.Timestamp" {
		return object{"type": "string", "format": "date-time"}
	}
	name := string(m.Name())
	if _, done := g.schemas[name]; done {
		return ref(name)
	}
	schema := object{"type": "object", "additionalProperties": false}
	g.schemas[name] = schema // before its fields, which may refer to it
	properties := object{}
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		properties[f.JSONName()] = described(g.field(f), f)
	}
	if len(properties) > 0 {
		schema["properties"] = properties
	}
	described(schema, m)
	g.oneofs(schema, m)
	return ref(name)
}

// oneofs says in words what JSON Schema could say only at great length.
func (g *generator) oneofs(schema object, m protoreflect.MessageDescriptor) {
	for i := range m.Oneofs().Len() {
		o := m.Oneofs().Get(i)
		if o.IsSynthetic() {
			continue
		}
		var names []string
		for j := range o.Fields().Len() {
			names = append(names, o.Fields().Get(j).JSONName())
		}
		was, _ := schema["description"].(string)
		schema["description"] = strings.TrimSpace(was + " At most one of " + strings.Join(names, ", ") + " is set.")
	}
}

func (g *generator) field(f protoreflect.FieldDescriptor) object {
	switch {
	case f.IsMap():
		return object{"type": "object", "additionalProperties": g.value(f.MapValue())}
	case f.IsList():
		return object{"type": "array", "items": g.value(f)}
	}
	return g.value(f)
}

// value is the JSON form of one value, as protobuf's JSON mapping has it:
// integers of 64 bits are strings, octets are base64.
func (g *generator) value(f protoreflect.FieldDescriptor) object {
	switch f.Kind() {
	case protoreflect.BoolKind:
		return object{"type": "boolean"}
	case protoreflect.StringKind:
		return object{"type": "string"}
	case protoreflect.BytesKind:
		return object{"type": "string", "contentEncoding": "base64"}
	case protoreflect.EnumKind:
		return enum(f.Enum())
	case protoreflect.MessageKind:
		return g.message(f.Message())
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return object{"type": "string", "format": "int64"}
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return object{"type": "string", "format": "uint64"}
	case protoreflect.DoubleKind, protoreflect.FloatKind:
		return object{"type": "number"}
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return object{"type": "integer", "minimum": 0, "maximum": 1<<32 - 1}
	}
	return object{"type": "integer", "minimum": -1 << 31, "maximum": 1<<31 - 1}
}

func enum(e protoreflect.EnumDescriptor) object {
	var names []any
	for i := range e.Values().Len() {
		names = append(names, string(e.Values().Get(i).Name()))
	}
	return object{"type": "string", "enum": names}
}

// described adds the comment of a descriptor to what describes it.
func described(o object, d any, also ...string) object {
	text := strings.Join(also, " ")
	if d, ok := d.(protoreflect.Descriptor); ok {
		text = comment(d)
	}
	if text != "" {
		o["description"] = text
	}
	return o
}

func comment(d protoreflect.Descriptor) string {
	return joined(d.ParentFile().SourceLocations().ByDescriptor(d).LeadingComments)
}

// fileComment is what stands above the syntax statement (field 12).
func fileComment(file protoreflect.FileDescriptor) string {
	at := file.SourceLocations().ByPath(protoreflect.SourcePath{12})
	return joined(strings.Join(at.LeadingDetachedComments, "\n") + at.LeadingComments)
}

// joined makes one line of each paragraph.
func joined(s string) string {
	var paragraphs []string
	for _, p := range strings.Split(strings.TrimSpace(s), "\n\n") {
		paragraphs = append(paragraphs, strings.Join(strings.Fields(p), " "))
	}
	return strings.Join(paragraphs, "\n\n")
}
