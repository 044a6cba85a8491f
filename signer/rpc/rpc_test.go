package rpc_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/privyseal/privyseal/internal/tlsvec"
	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/access"
	"github.com/privyseal/privyseal/signer/admit"
	signerv1 "github.com/privyseal/privyseal/signer/api/privyseal/signer/v1"
	"github.com/privyseal/privyseal/signer/api/privyseal/signer/v1/signerv1connect"
	"github.com/privyseal/privyseal/signer/client"
	"github.com/privyseal/privyseal/signer/rpc"
	"github.com/privyseal/privyseal/signer/rpc/rpctest"
	"github.com/privyseal/privyseal/signer/service"
	"github.com/privyseal/privyseal/signer/service/servicetest"
	"github.com/privyseal/privyseal/signer/signertest"
)

func start(t testing.TB, change func(*service.Config), limits func(*rpc.Config)) (*rpctest.Server, *signertest.Device) {
	t.Helper()
	d := signertest.New()
	s := rpctest.Start(t, servicetest.New(t, map[string]signer.Device{"soft": d}, change), "soft", limits)
	s.Key("acme.leaf", signer.PurposeMLSLeaf, "soft")
	return s, d
}

// httpClient returns a plain HTTP client with a caller's certificate, or none.
func httpClient(s *rpctest.Server, i *client.Identity) *http.Client {
	c := &tls.Config{RootCAs: s.Roots}
	if i != nil {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return i.Certificate() }
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: c, ForceAttemptHTTP2: true}}
}

func content(text string) []byte { return signertest.ApplicationTBS("room", 1, text) }

func mls(text string) *signerv1.SignRequest {
	return &signerv1.SignRequest{Key: "leaf", Input: &signerv1.SignRequest_Mls{Mls: &signerv1.MLSInput{Label: []byte("FramedContentTBS"), Content: content(text)}}}
}

// TestEveryProtocol asks in gRPC, gRPC-Web, Connect and plain JSON.
func TestEveryProtocol(t *testing.T) {
	s, _ := start(t, nil, nil)
	h := httpClient(s, s.Identity("acme", "bot", access.Client, "leaf:sign"))
	for name, options := range map[string][]connect.ClientOption{
		"connect": nil, "json": {connect.WithProtoJSON()}, "grpc": {connect.WithGRPC()}, "grpc-web": {connect.WithGRPCWeb()},
	} {
		c := signerv1connect.NewSigningServiceClient(h, s.URL, options...)
		r, err := c.Sign(t.Context(), connect.NewRequest(mls(name)))
		if err != nil || service.Checksum(r.Msg.Signature) != r.Msg.SignatureCrc32C || r.Msg.Name != "keys/leaf/versions/1" {
			t.Errorf("%s: %v, %v", name, r, err)
		}
		_, err = c.Sign(t.Context(), connect.NewRequest(&signerv1.SignRequest{Key: "absent", Input: mls("").Input}))
		if connect.CodeOf(err) != connect.CodeNotFound {
			t.Errorf("%s, a key that is not there: %v", name, err)
		}
	}
	body := fmt.Sprintf(`{"key":"leaf","octets":%q}`, "aGVsbG8=")
	resp, err := h.Post(s.URL+signerv1connect.SigningServiceSignProcedure, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var e struct {
		Code    string
		Details []struct{ Type string }
	}
	if err := json.NewDecoder(resp.Body).Decode(&e); err != nil || e.Code != "permission_denied" || len(e.Details) != 1 || resp.StatusCode != http.StatusForbidden {
		t.Errorf("as curl does: %d, %+v, %v", resp.StatusCode, e, err)
	}
}

func detail[T any](err error) *T {
	ce, ok := errors.AsType[*connect.Error](err)
	if !ok {
		return nil
	}
	for _, d := range ce.Details() {
		if m, err := d.Value(); err == nil {
			if found, ok := m.(any).(*T); ok {
				return found
			}
		}
	}
	return nil
}

func TestErrorsSayWhatToDo(t *testing.T) {
	s, d := start(t, func(c *service.Config) {
		c.Rates = admit.Rates{Tenants: map[string]admit.Rate{"slow": {PerSecond: 0.5, Burst: 1}}}
	}, nil)
	s.Key("slow.leaf", signer.PurposeMLSLeaf, "soft")
	call := func(c *client.Client, m *signerv1.SignRequest) error {
		_, err := c.Signing().Sign(t.Context(), connect.NewRequest(m))
		return err
	}
	bot, slow := s.Caller("acme", "bot", access.Client, "leaf:sign"), s.Caller("slow", "bot", access.Client, "leaf:sign")
	if err := errors.Join(call(bot, mls("x")), call(slow, mls("x"))); err != nil {
		t.Fatal(err)
	}
	wrong := mls("x")
	wrong.InputCrc32C = new(uint32)
	for _, c := range []struct {
		name   string
		err    error
		code   connect.Code
		reason string
		action string
	}{
		{"budget", call(slow, mls("x")), connect.CodeResourceExhausted, "OVERLOADED", "retry"},
		{"checksum", call(bot, wrong), connect.CodeInvalidArgument, "BAD_CHECKSUM", "retry"},
		{"no input", call(bot, &signerv1.SignRequest{Key: "leaf"}), connect.CodeInvalidArgument, "BAD_REQUEST", "fix-request"},
		{"no certificate", call(s.Anonymous(), mls("x")), connect.CodeUnauthenticated, "UNAUTHENTICATED", "ask-operator"},
	} {
		info := detail[errdetails.ErrorInfo](c.err)
		if connect.CodeOf(c.err) != c.code || info == nil || info.Reason != c.reason || info.Metadata["action"] != c.action || info.Domain != rpc.Domain {
			t.Errorf("%s: %v, %v", c.name, c.err, info)
		}
		if retry := detail[errdetails.RetryInfo](c.err); (retry != nil) != (c.action == "retry") {
			t.Errorf("%s: retry %v", c.name, retry)
		}
	}
	ce, _ := errors.AsType[*connect.Error](call(slow, mls("x")))
	if ce == nil || ce.Meta().Get("Retry-After") != "2" {
		t.Errorf("Retry-After of a budget of one in two seconds: %v", ce)
	}
	// What nobody expected gives nothing away.
	d.Fault = func(step signertest.Step, p signertest.Phase) error {
		if step == signertest.StepSign {
			panic("secret 4711")
		}
		return nil
	}
	if err := call(bot, mls("y")); connect.CodeOf(err) != connect.CodeInternal || strings.Contains(err.Error(), "4711") {
		t.Errorf("a bug of ours: %v", err)
	}
}

// TestTenantsOverTheWire: what one tenant's admin asks about another's keys and
// callers is answered as for what there is not.
func TestTenantsOverTheWire(t *testing.T) {
	s, _ := start(t, nil, nil)
	s.Caller("acme", "bot", access.Client, "leaf:sign")
	admin := s.Caller("other", "root", access.Admin, "*:sign,raw,mac,agree")
	ctx := t.Context()
	for _, name := range []string{"leaf", "absent"} {
		for what, err := range map[string]error{
			"get":     second(admin.Keys().GetKey(ctx, connect.NewRequest(&signerv1.GetKeyRequest{Name: name}))),
			"public":  second(admin.Keys().GetPublicKey(ctx, connect.NewRequest(&signerv1.GetPublicKeyRequest{Name: name}))),
			"rotate":  second(admin.Keys().RotateKey(ctx, connect.NewRequest(&signerv1.RotateKeyRequest{Name: name}))),
			"disable": second(admin.Keys().DisableKey(ctx, connect.NewRequest(&signerv1.DisableKeyRequest{Name: name}))),
			"destroy": second(admin.Keys().DestroyKeyVersion(ctx, connect.NewRequest(&signerv1.DestroyKeyVersionRequest{Name: name, Version: 1}))),
			"attest":  second(admin.Keys().AttestKeyVersion(ctx, connect.NewRequest(&signerv1.AttestKeyVersionRequest{Name: name, Version: 1}))),
			"sign":    second(admin.Signing().Sign(ctx, connect.NewRequest(&signerv1.SignRequest{Key: name, Input: mls("x").Input}))),
		} {
			if want := fmt.Sprintf("not_found: no such key: %s, or there is no grant for it", name); err == nil || err.Error() != want {
				t.Errorf("%s %s: %v", what, name, err)
			}
		}
	}
	list, err := admin.Keys().ListKeys(ctx, connect.NewRequest(&signerv1.ListKeysRequest{}))
	if err != nil || len(list.Msg.Keys) != 0 {
		t.Errorf("keys: %v, %v", list, err)
	}
	callers, err := admin.Access().ListCallers(ctx, connect.NewRequest(&signerv1.ListCallersRequest{}))
	if err != nil || len(callers.Msg.Callers) != 1 {
		t.Errorf("callers: %v, %v", callers, err)
	}
	if err := second(admin.Access().RevokeCaller(ctx, connect.NewRequest(&signerv1.RevokeCallerRequest{Name: "bot"}))); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("another tenant's caller was revoked: %v", err)
	}
	invited, err := admin.Access().InviteCaller(ctx, connect.NewRequest(&signerv1.InviteCallerRequest{Name: "bot", Role: "auditor"}))
	if err != nil || len(invited.Msg.CaSha256) != 32 {
		t.Fatal(err)
	}
	identity, err := client.Enroll(ctx, s.Anonymous(), t.TempDir(), invited.Msg.Token)
	if err != nil {
		t.Fatal(err)
	}
	auditor := s.Client(identity, nil)
	me, err := auditor.Access().WhoAmI(ctx, connect.NewRequest(&signerv1.WhoAmIRequest{}))
	if err != nil || me.Msg.Tenant != "other" || me.Msg.Role != "auditor" {
		t.Errorf("%v, %v", me, err)
	}
	if err := second(auditor.Access().InviteCaller(ctx, connect.NewRequest(&signerv1.InviteCallerRequest{Name: "x", Role: "admin"}))); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("an auditor invited: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestKeysOverTheWire(t *testing.T) {
	s, _ := start(t, nil, nil)
	op, ctx := s.Caller("acme", "op", access.Operator, "new:sign"), t.Context()
	made, err := op.Keys().CreateKey(ctx, connect.NewRequest(&signerv1.CreateKeyRequest{Name: "new", Purpose: "mls-leaf", Labels: map[string]string{"env": "prod"}}))
	if err != nil || made.Msg.ActiveVersion != 1 || made.Msg.Algorithm != "P-256" || made.Msg.Labels["env"] != "prod" {
		t.Fatalf("%v, %v", made, err)
	}
	if err := second(op.Keys().CreateKey(ctx, connect.NewRequest(&signerv1.CreateKeyRequest{Name: "new", Purpose: "mls-leaf"}))); connect.CodeOf(err) != connect.CodeAlreadyExists {
		t.Errorf("twice: %v", err)
	}
	pub, err := op.Keys().GetPublicKey(ctx, connect.NewRequest(&signerv1.GetPublicKeyRequest{Name: "new"}))
	if err != nil || !strings.HasPrefix(pub.Msg.Pem, "-----BEGIN PUBLIC KEY") || !strings.Contains(pub.Msg.Jwk, `"crv":"P-256"`) || len(pub.Msg.CoseKey) < 70 {
		t.Errorf("%v, %v", pub, err)
	}
	var names []string
	for token := ""; ; {
		page, err := op.Keys().ListKeys(ctx, connect.NewRequest(&signerv1.ListKeysRequest{PageSize: 1, PageToken: token}))
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range page.Msg.Keys {
			names = append(names, k.Name)
		}
		if token = page.Msg.NextPageToken; token == "" {
			break
		}
	}
	if strings.Join(names, " ") != "leaf new" {
		t.Errorf("pages of one have %v", names)
	}
	if err := second(op.Keys().DestroyKeyVersion(ctx, connect.NewRequest(&signerv1.DestroyKeyVersionRequest{Name: "new", Version: 1}))); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("an operator destroyed: %v", err)
	}
	admin := s.Caller("acme", "root", access.Admin)
	gone, err := admin.Keys().DestroyKeyVersion(ctx, connect.NewRequest(&signerv1.DestroyKeyVersionRequest{Name: "new", Version: 1}))
	if err != nil || gone.Msg.Versions[0].State != "destroyed" || gone.Msg.ActiveVersion != 0 {
		t.Errorf("%v, %v", gone, err)
	}
}

func TestBatchOverTheWire(t *testing.T) {
	s, _ := start(t, nil, nil)
	c := s.Caller("acme", "bot", access.Client, "leaf:sign")
	in := &signerv1.BatchSignRequest{}
	for i := range 20 {
		in.Requests = append(in.Requests, mls(fmt.Sprint(i)))
	}
	in.Requests[7] = &signerv1.SignRequest{Key: "other", Input: mls("").Input}
	r, err := c.Signing().BatchSign(t.Context(), connect.NewRequest(in))
	if err != nil || len(r.Msg.Results) != 20 {
		t.Fatal(err)
	}
	for i, one := range r.Msg.Results {
		if failed := one.GetFailure(); (i == 7) != (failed != nil) || failed != nil && (failed.Reason != "NOT_FOUND" || failed.Code != "not_found" || failed.Action != "fix-request") {
			t.Errorf("item %d: %v", i, one)
		}
	}
}

func TestHealthAndOpenAPI(t *testing.T) {
	s, _ := start(t, nil, nil)
	h := httpClient(s, nil)
	resp, err := h.Post(s.URL+"/grpc.health.v1.Health/Check", "application/json", strings.NewReader(`{"service":"privyseal.signer.v1.SigningService"}`))
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if !bytes.Contains(b, []byte("SERVING")) {
		t.Errorf("health: %s", b)
	}
	if resp, err = h.Get(s.URL + "/openapi.json"); err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var doc struct{ Paths map[string]any }
	if err := json.NewDecoder(resp.Body).Decode(&doc); err != nil || doc.Paths[signerv1connect.SigningServiceSignProcedure] == nil {
		t.Errorf("openapi: %v", err)
	}
}

// TestLimits: slow, huge and many.
func TestLimits(t *testing.T) {
	s, d := start(t, nil, func(c *rpc.Config) { c.Requests, c.Deadline = 4, 2*time.Second })
	identity := s.Identity("acme", "bot", access.Client, "leaf:sign")
	c := s.Client(identity, func(c *client.Config) { c.Attempts = 1 })
	t.Run("huge", func(t *testing.T) {
		h := httpClient(s, identity)
		resp, err := h.Post(s.URL+signerv1connect.SigningServiceSignProcedure, "application/proto", io.LimitReader(zeros{}, 64<<20))
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				t.Error("64 MiB were taken")
			}
		}
		large := mls("x")
		large.GetMls().Content = make([]byte, service.MaxInput+1)
		if err := second(c.Signing().Sign(t.Context(), connect.NewRequest(large))); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("a content of more than a MiB: %v", err)
		}
		batch := &signerv1.BatchSignRequest{Requests: make([]*signerv1.SignRequest, 5000)}
		for i := range batch.Requests {
			batch.Requests[i] = &signerv1.SignRequest{}
		}
		if err := second(c.Signing().BatchSign(t.Context(), connect.NewRequest(batch))); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("a batch of 5000: %v", err)
		}
	})
	t.Run("idle connections", func(t *testing.T) {
		for range 2000 {
			conn, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "https://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
		}
		if err := second(c.Signing().Sign(t.Context(), connect.NewRequest(mls("x")))); err != nil {
			t.Errorf("beside 2000 connections that say nothing: %v", err)
		}
	})
	t.Run("many at once", func(t *testing.T) {
		release := make(chan struct{})
		d.Fault = func(step signertest.Step, p signertest.Phase) error {
			if step == signertest.StepSign && p == signertest.Before {
				<-release
			}
			return nil
		}
		defer func() { d.Fault = nil }()
		var wg sync.WaitGroup
		errs := make(chan error, 12)
		for i := range 12 {
			wg.Go(func() {
				errs <- second(c.Signing().Sign(context.Background(), connect.NewRequest(mls(fmt.Sprint("many", i)))))
			})
		}
		shed := 0
		for shed < 8 {
			if err := <-errs; connect.CodeOf(err) == connect.CodeResourceExhausted {
				shed++
			} else {
				t.Fatalf("%d were sent away, then: %v", shed, err)
			}
		}
		close(release)
		wg.Wait()
		close(errs)
		for err := range errs {
			if err != nil {
				t.Errorf("one that was let in: %v", err)
			}
		}
	})
	t.Run("slow body", func(t *testing.T) {
		r, w := io.Pipe()
		defer w.Close()
		begin := time.Now()
		resp, err := httpClient(s, identity).Post(s.URL+signerv1connect.SigningServiceSignProcedure, "application/proto", r)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				t.Error("a request that never came was answered")
			}
		}
		if took := time.Since(begin); took > 40*time.Second {
			t.Errorf("it was held for %v", took)
		}
	})
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// TestOverloadedSaysWhen holds the device, and fills the queue before it. Who is
// sent away, at once or after a wait, is told why, that the same request may
// succeed, and when; and a client that does as told gets its signature.
func TestOverloadedSaysWhen(t *testing.T) {
	s, d := start(t, func(c *service.Config) {
		c.Gate = admit.Options{Inside: 1, Waiting: 3, MaxWait: 2 * time.Second}
	}, nil)
	identity := s.Identity("acme", "bot", access.Client, "leaf:sign")
	once := s.Client(identity, func(c *client.Config) { c.Attempts = 1 })
	release, working := make(chan struct{}), make(chan struct{}, 1)
	var held sync.Once
	d.Fault = func(step signertest.Step, p signertest.Phase) error {
		if step == signertest.StepSign && p == signertest.Before {
			held.Do(func() { working <- struct{}{}; <-release })
		}
		return nil
	}
	call := func(c *client.Client, text string) error {
		return second(c.Signing().Sign(context.Background(), connect.NewRequest(mls(text))))
	}
	checkOverloaded := func(what string, err error) {
		t.Helper()
		info, retry := detail[errdetails.ErrorInfo](err), detail[errdetails.RetryInfo](err)
		if connect.CodeOf(err) != connect.CodeResourceExhausted || info.GetReason() != "OVERLOADED" || info.GetMetadata()[rpc.ActionKey] != "retry" {
			t.Fatalf("%s: %v, %v", what, err, info)
		}
		wait := retry.GetRetryDelay().AsDuration()
		ce, _ := errors.AsType[*connect.Error](err)
		if seconds, _ := strconv.Atoi(ce.Meta().Get("Retry-After")); wait <= 0 || wait > 5*time.Second || time.Duration(seconds)*time.Second < wait {
			t.Errorf("%s: come again after %v, Retry-After %q", what, wait, ce.Meta().Get("Retry-After"))
		}
	}
	first := make(chan error, 1)
	go func() { first <- call(once, "first") }()
	<-working
	waiting := make(chan error, 8)
	for i := range 8 {
		go func() { waiting <- call(once, fmt.Sprint("waits ", i)) }()
	}
	for range 5 {
		checkOverloaded("beyond the queue", <-waiting) // the device still works for the first
	}
	for range 3 {
		checkOverloaded("after its wait", <-waiting)
	}
	patient := make(chan error, 1)
	go func() {
		key, err := s.Client(identity, nil).Signer(context.Background(), "leaf")
		if err == nil {
			b := new(tlsvec.Builder)
			b.String("MLS 1.0 FramedContentTBS")
			b.Vector(content("patient"))
			_, err = key.SignMessage(nil, b.Bytes(), nil)
		}
		patient <- err
	}()
	close(release)
	if err := <-first; err != nil {
		t.Errorf("the one that was let in: %v", err)
	}
	if err := <-patient; err != nil {
		t.Errorf("a client that tries again: %v", err)
	}
}
