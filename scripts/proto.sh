#!/bin/sh
# Regenerate the code and the OpenAPI document of the signing service's API from
# its proto. Needs protoc with the well-known types (Debian: protobuf-compiler and
# libprotobuf-dev), and protoc-gen-go and protoc-gen-connect-go of the
# versions in go.mod:
#
#	go install google.golang.org/protobuf/cmd/protoc-gen-go
#	go install connectrpc.com/connect/cmd/protoc-gen-connect-go
set -eu
cd "$(dirname "$0")/../signer/api"
PATH="$PATH:$(go env GOPATH)/bin"
module=github.com/privyseal/privyseal/signer/api
protoc -I . --go_out=. --go_opt=module=$module --connect-go_out=. --connect-go_opt=module=$module \
	--include_imports --include_source_info --descriptor_set_out=/dev/stdout \
	privyseal/signer/v1/signer.proto >openapi/signer.binpb
go run ./openapi/generate openapi/signer.binpb >openapi/openapi.json
rm openapi/signer.binpb
gofmt -l -w privyseal
