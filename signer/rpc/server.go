package rpc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net/http"
	"time"
)

// TLSConfig returns the server's side of the mutual TLS that the handler
// expects. pool is asked at each handshake, so that a new CA key is known.
func TLSConfig(certificate func() (*tls.Certificate, error), pool func(context.Context) (*x509.CertPool, error)) *tls.Config {
	base := &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"h2", "http/1.1"}, ClientAuth: tls.VerifyClientCertIfGiven,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return certificate() },
	}
	base.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		cas, err := pool(hello.Context())
		if err != nil {
			return nil, err
		}
		c := base.Clone()
		c.GetConfigForClient, c.ClientCAs = nil, cas
		return c, nil
	}
	return base
}

// NewServer returns a server with limits against clients that are slow, large
// or many: for programs and tests that have no listener of their own.
func NewServer(h http.Handler, c *tls.Config, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler: h, TLSConfig: c, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 256, MaxReadFrameSize: 1 << 20, SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second},
	}
}
