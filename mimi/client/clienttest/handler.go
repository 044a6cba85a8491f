package clienttest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/privyseal/privyseal/internal/problem"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mimi/hub"
	"github.com/privyseal/privyseal/mimi/identity"
	"github.com/privyseal/privyseal/mimi/policy"
	"github.com/privyseal/privyseal/mls"
)

func (h *Hub) routes() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("POST "+clientapi.PathDevice, h.answer(h.register))
	m.HandleFunc("GET "+clientapi.PathDevice, h.answer(h.registration))
	m.HandleFunc("POST "+clientapi.PathKeyPackages, h.answer(h.upload))
	m.HandleFunc("GET "+clientapi.PathKeyPackages, h.answer(h.counts))
	m.HandleFunc("POST "+clientapi.PathKeyMaterial, h.answer(h.keyMaterial))
	m.HandleFunc("GET "+clientapi.PathHubKeys, h.answer(h.hubKeys))
	m.HandleFunc("POST "+clientapi.PathRooms, h.once(h.create))
	m.HandleFunc("POST "+clientapi.PathRooms+"/{room}/update", h.once(h.update))
	m.HandleFunc("POST "+clientapi.PathRooms+"/{room}/messages", h.once(h.submit))
	m.HandleFunc("POST "+clientapi.PathRooms+"/{room}/group-info", h.answer(h.groupInfo))
	m.HandleFunc("POST "+clientapi.PathRooms+"/{room}/join-codes", h.answer(h.joinCode))
	m.HandleFunc("POST "+clientapi.PathRooms+"/{room}/abuse-reports", h.answer(h.report))
	m.HandleFunc("DELETE "+clientapi.PathRooms+"/{room}/subscription", h.answer(h.nothing))
	m.HandleFunc("POST "+clientapi.PathAssets, h.answer(h.keepAsset))
	m.HandleFunc("GET "+clientapi.PathDownload+"/{url}", h.answer(h.giveAsset))
	m.HandleFunc("GET "+clientapi.PathEvents, h.events)
	return m
}

type request struct {
	*http.Request
	body   []byte
	device *device // nil before it is registered
}

// answer runs a handler under the hub's lock.
func (h *Hub) answer(f func(*request) ([]byte, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(io.LimitReader(r.Body, clientapi.MaxRequest))
		var out []byte
		if err == nil {
			h.mu.Lock()
			q := &request{r, body, h.devices[clientapi.TLSKeyHash(r.TLS.PeerCertificates[0])]}
			if q.device == nil && r.URL.Path != clientapi.PathDevice {
				err = clientapi.Problemf(clientapi.CodeNotRegistered, "the TLS key is of no client")
			} else {
				out, err = f(q)
			}
			h.mu.Unlock()
		}
		if err != nil {
			problem.Of(err).Write(w)
			return
		}
		w.Header().Set("Content-Type", clientapi.ContentType)
		w.Write(out)
	}
}

// once gives the first answer again to a request that was accepted.
func (h *Hub) once(f func(*request) ([]byte, bool, error)) http.HandlerFunc {
	return h.answer(func(q *request) ([]byte, error) {
		key := sha256.Sum256(append([]byte(q.URL.Path+"\x00"+q.device.client.String()+"\x00"), q.body...))
		if first, ok := h.answers[key]; ok {
			return first, nil
		}
		out, accepted, err := f(q)
		if err == nil && accepted {
			h.answers[key] = out
		}
		return out, err
	})
}

func (h *Hub) nothing(*request) ([]byte, error) { return nil, nil }

func malformed(err error) error { return clientapi.Problemf(clientapi.CodeMalformed, "%w", err) }

func (h *Hub) register(q *request) ([]byte, error) {
	reg, err := clientapi.ParseRegisterRequest(q.body)
	if err == nil {
		err = reg.Verify()
	}
	if err != nil {
		return nil, malformed(err)
	}
	v, err := h.Evaluator.Evaluate(q.Context(), identity.Question{
		Suite: reg.CipherSuite, Credential: reg.Credential, SignatureKey: reg.SignatureKey, Role: identity.RoleClient, Acting: true,
	})
	if err != nil {
		return nil, clientapi.Problemf(clientapi.CodeCredential, "%w", err)
	}
	hash := clientapi.TLSKeyHash(q.TLS.PeerCertificates[0])
	if reg.TLSKeyHash != hash {
		return nil, clientapi.Problemf(clientapi.CodeRefused, "signed for another TLS key")
	}
	d := h.devices[hash]
	if d == nil {
		d = &device{client: v.Identity.Client, user: v.Identity.User}
		h.devices[hash] = d
	}
	d.key = reg.SignatureKey
	out := clientapi.Registration{Client: d.client, User: d.user, Cursor: h.seq, KeyPackages: d.counts()}
	return out.Marshal(), nil
}

func (h *Hub) registration(q *request) ([]byte, error) {
	d := q.device
	if d == nil {
		return nil, clientapi.Problemf(clientapi.CodeNotRegistered, "the TLS key is of no client")
	}
	return (&clientapi.Registration{Client: d.client, User: d.user, Cursor: h.seq, KeyPackages: d.counts()}).Marshal(), nil
}

func (d *device) counts() clientapi.KeyPackageCounts {
	return clientapi.KeyPackageCounts{{CipherSuite: suite, Left: uint32(len(d.packages)), LastResort: d.last != nil}}
}

func (h *Hub) counts(q *request) ([]byte, error) { return q.device.counts().Marshal(), nil }

func (h *Hub) upload(q *request) ([]byte, error) {
	up, err := clientapi.ParseKeyPackageUpload(q.body)
	if err != nil {
		return nil, malformed(err)
	}
	if up.Replace {
		q.device.packages, q.device.last = nil, nil
	}
	for _, k := range up.KeyPackages {
		switch {
		case !bytes.Equal(k.LeafNode.SignatureKey, q.device.key):
			return nil, clientapi.Problemf(clientapi.CodeCredential, "a KeyPackage of another key")
		case k.LastResort():
			q.device.last = k
		default:
			q.device.packages = append(q.device.packages, k)
		}
	}
	return q.device.counts().Marshal(), nil
}

func (h *Hub) keyMaterial(q *request) ([]byte, error) {
	m, err := mimi.ParseKeyMaterialRequest(q.body)
	if err == nil {
		err = m.Verify()
	}
	if err != nil {
		return nil, malformed(err)
	}
	out := &mimi.KeyMaterialResponse{Protocol: mimi.ProtocolMLS10, UserStatus: mimi.KeyMaterialUserUnknown, UserURI: m.TargetUser}
	for _, d := range h.devices {
		if d.user != m.TargetUser {
			continue
		}
		out.UserStatus = mimi.KeyMaterialSuccess
		out.Clients = append(out.Clients, d.claim())
		if n := len(d.packages); n < 5 {
			h.tell(d, mimi.URI{}, clientapi.EventKeyPackagesLow, d.counts().Marshal())
		}
	}
	return out.Marshal(), nil
}

func (d *device) claim() mimi.ClientKeyMaterial {
	c := mimi.ClientKeyMaterial{ClientURI: d.client}
	switch {
	case len(d.packages) > 0:
		c.KeyPackage, d.packages = d.packages[0], d.packages[1:]
	case d.last != nil:
		c.KeyPackage = d.last
	default:
		c.Status = mimi.KeyMaterialExhausted
	}
	return c
}

func (h *Hub) hubKeys(q *request) ([]byte, error) {
	n, err := strconv.ParseUint(q.URL.Query().Get("suite"), 10, 16)
	key := h.config.SenderKey(mls.CipherSuite(n))
	if err != nil || key == nil {
		return nil, clientapi.Problemf(clientapi.CodeNotFound, "no key for that cipher suite")
	}
	return (&clientapi.HubKeys{CipherSuite: mls.CipherSuite(n), HubSender: key.Sender, FrankingAgent: h.agent.Marshal()}).Marshal(), nil
}

func (q *request) from() hub.From {
	return hub.From{Provider: q.device.client.Host(), Client: q.device.client}
}

func (h *Hub) hosted(q *request) (*hosted, error) {
	uri, err := mimi.URIFromPathSegment(q.PathValue("room"))
	if err != nil {
		if uri, err = mimi.ParseURI(q.PathValue("room")); err != nil {
			return nil, malformed(err)
		}
	}
	if r := h.rooms[uri]; r != nil {
		return r, nil
	}
	return nil, clientapi.Problemf(clientapi.CodeNotFound, "no such room")
}

func (h *Hub) create(q *request) ([]byte, bool, error) {
	c, err := clientapi.ParseCreateRoomRequest(q.body)
	if err != nil {
		return nil, false, malformed(err)
	}
	if h.rooms[c.RoomID] != nil {
		return nil, false, clientapi.Problemf(clientapi.CodeRoomExists, "the name is taken")
	}
	r, out, err := hub.Create(q.Context(), &h.config, q.from(), c.RoomID, c.GroupInfo, c.RatchetTree)
	if err != nil {
		return nil, false, clientapi.Problemf(clientapi.CodeRefused, "%w", err)
	}
	h.rooms[c.RoomID] = &hosted{r, make(map[mimi.URI]*hub.Joining), make(map[string]policy.JoinCode)}
	return out.Response.Marshal(), true, nil
}

func (h *Hub) update(q *request) ([]byte, bool, error) {
	r, err := h.hosted(q)
	if err != nil {
		return nil, false, err
	}
	b, err := mimi.ParseHandshakeBundle(q.body)
	if err != nil {
		return nil, false, malformed(err)
	}
	before := members(r.room)
	out, err := r.room.Update(q.Context(), q.from(), b, func(c mimi.URI) *hub.Joining { return r.told[c] })
	if err != nil {
		return nil, false, refused(err)
	}
	h.fanOut(r.room, out.Events, before)
	return out.Response.Marshal(), out.Response.ResponseCode == mimi.UpdateSuccess, nil
}

func refused(err error) error {
	if errors.Is(err, hub.ErrForeign) {
		return clientapi.Problemf(clientapi.CodeRefused, "%w", err)
	}
	return malformed(err)
}

func (h *Hub) submit(q *request) ([]byte, bool, error) {
	r, err := h.hosted(q)
	if err != nil {
		return nil, false, err
	}
	m, err := mimi.ParseSubmitMessageRequest(q.body)
	if err != nil {
		return nil, false, malformed(err)
	}
	s, err := r.room.Submit(q.from(), m)
	if err != nil {
		return nil, false, refused(err)
	}
	if !s.Accepted {
		return s.Response.Marshal(), false, nil
	}
	var frank *mimi.Frank
	if s.Tag != nil {
		if frank, err = h.frankers[string(r.room.FrankingKey())].Frank(q.Context(), *s.Tag, &s.Context); err != nil {
			return nil, false, err
		}
	}
	h.fanOut(r.room, []hub.Event{s.Event(frank)}, nil)
	return s.Response.Marshal(), true, nil
}

func (h *Hub) groupInfo(q *request) ([]byte, error) {
	r, err := h.hosted(q)
	if err != nil {
		return nil, err
	}
	g, err := mimi.ParseGroupInfoRequest(q.body)
	if err != nil {
		return nil, malformed(err)
	}
	told, err := r.room.GroupInfo(q.Context(), q.from(), g, func(code []byte) policy.JoinCode {
		c := r.codes[string(code)]
		c.Shown = true
		return c
	})
	if err != nil {
		return nil, refused(err)
	}
	if told.Joining != nil {
		r.told[told.Client] = told.Joining
	}
	return told.Response.Marshal(), nil
}

func (h *Hub) keepAsset(q *request) ([]byte, error) {
	url := "https://assets." + h.Host + "/" + strconv.Itoa(len(h.assets))
	h.assets[url] = q.body
	return (&clientapi.Asset{URL: url, Size: uint64(len(q.body))}).Marshal(), nil
}

func (h *Hub) giveAsset(q *request) ([]byte, error) {
	if b, ok := h.assets[q.PathValue("url")]; ok {
		return b, nil
	}
	return nil, clientapi.Problemf(clientapi.CodeNotFound, "no such asset")
}

// SpoilAssets changes the last octet of every asset.
func (h *Hub) SpoilAssets() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, b := range h.assets {
		b[len(b)-1] ^= 1
	}
}

func (h *Hub) joinCode(q *request) ([]byte, error) {
	r, err := h.hosted(q)
	if err != nil {
		return nil, err
	}
	j, err := clientapi.ParseJoinCodeRequest(q.body)
	if err != nil {
		return nil, malformed(err)
	}
	code := "code-" + strconv.Itoa(len(r.codes))
	r.codes[code] = policy.JoinCode{Valid: true, Role: j.Role}
	return (&clientapi.JoinCode{Code: []byte(code), Expires: uint64(time.Now().Add(time.Hour).UnixMilli())}).Marshal(), nil
}

func (h *Hub) report(q *request) ([]byte, error) {
	r, err := h.hosted(q)
	if err != nil {
		return nil, err
	}
	a, err := mimi.ParseAbuseReport(q.body)
	if err != nil {
		return nil, malformed(err)
	}
	var out clientapi.AbuseVerdicts
	for i := range a.Messages {
		out = append(out, h.verdict(q.Context(), r.room.URI(), a, &a.Messages[i]))
	}
	return out.Marshal(), nil
}
