// Package rpc serves the signing service over HTTP: gRPC, gRPC-Web and Connect
// (JSON) on one port, with the standard health service and the OpenAPI
// document.
//
// It translates: who calls comes from the client certificate that TLS has
// verified, errors become codes with google.rpc.ErrorInfo and RetryInfo, and
// sizes and numbers are bounded before anything is decoded. The rules are those
// of signer/service and signer/access.
package rpc
