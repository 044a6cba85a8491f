package tpm

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"

	"github.com/google/go-tpm/tpm2"
)

// Session attributes (Part 2, 8.4: TPMA_SESSION).
const (
	attrContinue = 0x01 // continueSession
	attrDecrypt  = 0x20 // decrypt: the TPM decrypts the command's first parameter
	attrEncrypt  = 0x40 // encrypt: the TPM encrypts the response's first parameter

	reservedAttributes = 0x18
)

// direction says which first parameters a session hides.
type direction byte

const (
	plain direction = 0
	in    direction = attrDecrypt
	inOut direction = attrDecrypt | attrEncrypt
)

const nonceSize = 16 // octets; also the size of the AES-128 key of a session

// A session is an HMAC or policy session that lives in the TPM and is used for
// one command after another, by different keys. go-tpm's own sessions are
// bound to one authorization value and one direction, and cut an
// authorization value at its first zero octet; with three loaded sessions in
// a TPM neither will do.
type session struct {
	handle    tpm2.TPMHandle
	key       []byte // sessionKey (Part 1, 19.6.8), empty if unsalted
	nonceTPM  []byte // the last one the TPM sent
	policy    bool
	dirty     bool // a policy session that has been used or half used
	uncertain bool // its state in the TPM is not known any more

	prf     hash.Hash // HMAC-SHA256 under key || prfAuth; nil until it is needed
	prfAuth []byte
}

// startSession starts a session, salted when a salt key is given (Part 3, 11.1).
func (a *attachment) startSession(kind tpm2.TPMSE, salt *tpm2.NamedHandle, saltPublic *tpm2.TPMTPublic) (*session, error) {
	cmd := tpm2.StartAuthSession{
		TPMKey:      tpm2.TPMRHNull,
		Bind:        tpm2.TPMRHNull,
		NonceCaller: tpm2.TPM2BNonce{Buffer: randomBytes(nonceSize)},
		SessionType: kind,
		Symmetric:   aesCFB128,
		AuthHash:    tpm2.TPMAlgSHA256,
	}
	var secret []byte
	if salt != nil {
		cmd.TPMKey = *salt
		var err error
		if secret, cmd.EncryptedSalt.Buffer, err = makeSalt(saltPublic); err != nil {
			return nil, err
		}
	}
	rsp, err := run(a, cmd)
	if err != nil {
		return nil, err
	}
	s := &session{
		handle:   tpm2.TPMHandle(rsp.SessionHandle.HandleValue()),
		nonceTPM: rsp.NonceTPM.Buffer,
		policy:   kind != tpm2.TPMSEHMAC,
	}
	if len(s.nonceTPM) < nonceSize || !sameRange(s.handle, firstLoadedSession) {
		return nil, a.malformed("TPM2_StartAuthSession", "handle %#x and a nonce of %d octets", uint32(s.handle), len(s.nonceTPM))
	}
	if len(secret) == 0 {
		return s, nil
	}
	s.key = kdfa256(hmac.New(sha256.New, secret), "ATH", s.nonceTPM, cmd.NonceCaller.Buffer)
	if err := a.prove(s); err != nil {
		if flushErr := a.flush(s.handle); flushErr != nil {
			return nil, flushErr
		}
		return nil, err
	}
	return s, nil
}

// prove uses a new session once for a command that takes no authorization.
// Were the answer that started it damaged, or from somebody who cannot read
// the salt, then every key would seem to have a wrong authorization value.
func (a *attachment) prove(s *session) error {
	_, err := run(a, tpm2.GetRandom{BytesRequested: nonceSize}, s.with(nil, attrEncrypt))
	if errors.Is(err, ErrAuth) {
		return a.malformed("TPM2_StartAuthSession", "the session does not work")
	}
	return err
}

func makeSalt(public *tpm2.TPMTPublic) (salt, encrypted []byte, err error) {
	key, err := tpm2.ImportEncapsulationKey(public)
	if err != nil {
		return nil, nil, fmt.Errorf("the storage root key cannot carry a salt: %w", err)
	}
	return tpm2.CreateEncryptedSalt(rand.Reader, key)
}

var aesCFB128 = tpm2.TPMTSymDef{
	Algorithm: tpm2.TPMAlgAES,
	KeyBits:   tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, tpm2.TPMKeyBits(128)),
	Mode:      tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgCFB),
}

// use is a session at work for one command: it implements tpm2.Session with
// the authorization value of the object that the command uses.
type use struct {
	s           *session
	auth        []byte // without trailing zeros, see trimAuth
	attrs       byte
	nonceCaller []byte
}

var _ tpm2.Session = (*use)(nil)

// with returns the session at work for an object with this authorization value.
func (s *session) with(auth []byte, d direction) *use {
	return &use{s: s, auth: trimAuth(auth), attrs: attrContinue | byte(d)}
}

// trimAuth removes trailing zeros (Part 1, 17.6.4.3) and nothing else.
func trimAuth(auth []byte) []byte {
	for len(auth) > 0 && auth[len(auth)-1] == 0 {
		auth = auth[:len(auth)-1]
	}
	return auth
}

func (u *use) Init(Transport) error           { return nil }
func (u *use) CleanupFailure(Transport) error { return nil }
func (u *use) NonceTPM() tpm2.TPM2BNonce      { return tpm2.TPM2BNonce{Buffer: u.s.nonceTPM} }
func (u *use) IsDecryption() bool             { return u.attrs&attrDecrypt != 0 }
func (u *use) IsEncryption() bool             { return u.attrs&attrEncrypt != 0 }
func (u *use) Handle() tpm2.TPMHandle         { return u.s.handle }

// NewNonceCaller draws the nonce of the next command.
func (u *use) NewNonceCaller() error {
	u.nonceCaller = randomBytes(nonceSize)
	return nil
}

// Authorize computes the HMAC of a command (Part 1, 19.6.5).
func (u *use) Authorize(cc tpm2.TPMCC, parms, addNonces []byte, names []tpm2.TPM2BName, _ int) (*tpm2.TPMSAuthCommand, error) {
	mac := u.mac(cpHash(cc, names, parms), u.nonceCaller, u.s.nonceTPM, addNonces, u.attrs)
	// Until the answer has been validated nobody knows which nonce the TPM
	// holds: an error answer leaves it alone, a lost one may not.
	u.s.dirty = true
	return &tpm2.TPMSAuthCommand{
		Handle:        u.s.handle,
		Nonce:         tpm2.TPM2BNonce{Buffer: u.nonceCaller},
		Attributes:    sessionAttributes(u.attrs),
		Authorization: tpm2.TPM2BData{Buffer: mac},
	}, nil
}

var errSessionHMAC = errors.New("the HMAC of the answer is wrong")

// Validate checks the HMAC of an answer and rolls the nonce. The attributes of
// an answer are those of the command, since none of ours audits (Part 2, 8.4).
func (u *use) Validate(rc tpm2.TPMRC, cc tpm2.TPMCC, parms []byte, _ []tpm2.TPM2BName, _ int, auth *tpm2.TPMSAuthResponse) error {
	u.s.uncertain = true
	attrs := attributeBits(auth.Attributes)
	mac := u.mac(rpHash(rc, cc, parms), auth.Nonce.Buffer, u.nonceCaller, nil, attrs)
	if !hmac.Equal(mac, auth.Authorization.Buffer) {
		return errSessionHMAC
	}
	if attrs != u.attrs {
		return fmt.Errorf("session attributes %#02x where %#02x were sent", attrs, u.attrs)
	}
	if len(auth.Nonce.Buffer) != len(u.s.nonceTPM) {
		return fmt.Errorf("a nonce of %d octets in a session of %d", len(auth.Nonce.Buffer), len(u.s.nonceTPM))
	}
	u.s.nonceTPM = auth.Nonce.Buffer
	u.s.uncertain = false
	u.s.dirty = false // the TPM has reset a policy session that was used (Part 1, 19.7.2)
	return nil
}

// mac is the authorization HMAC. Its key is sessionKey || authValue; with
// neither there is nothing to compute and the field stays empty (a policy
// session without PolicyAuthValue).
func (u *use) mac(pHash, newer, older, addNonces []byte, attrs byte) []byte {
	if len(u.s.key) == 0 && len(u.auth) == 0 && u.s.policy {
		return nil
	}
	h := u.s.keyed(u.auth)
	h.Write(pHash)
	h.Write(newer)
	h.Write(older)
	h.Write(addNonces)
	h.Write([]byte{attrs})
	return h.Sum(nil)
}

// keyed returns HMAC-SHA256 under sessionKey || authValue. A key that is used
// again with the session finds it ready.
func (s *session) keyed(auth []byte) hash.Hash {
	if s.prf == nil || !bytes.Equal(s.prfAuth, auth) {
		s.prf = hmac.New(sha256.New, append(bytes.Clone(s.key), auth...))
		s.prfAuth = bytes.Clone(auth)
	}
	s.prf.Reset()
	return s.prf
}

// kdfa256 is KDFa for 256 bits, which one block of HMAC-SHA256 gives (Part 1,
// 11.4.10.2):
//
//	K(1) = HMAC(K, [1]32 || label || 00 || contextU || contextV || [256]32)
func kdfa256(prf hash.Hash, label string, contextU, contextV []byte) []byte {
	block := make([]byte, 0, 64)
	block = binary.BigEndian.AppendUint32(block, 1)
	block = append(block, label...)
	block = append(block, 0)
	block = append(block, contextU...)
	block = append(block, contextV...)
	prf.Write(binary.BigEndian.AppendUint32(block, 256))
	return prf.Sum(nil)
}

// Encrypt hides the first parameter of a command (Part 1, 21.3).
func (u *use) Encrypt(parameter []byte) error {
	return u.cfb(parameter, u.nonceCaller, u.s.nonceTPM, true)
}

// Decrypt reveals the first parameter of an answer.
func (u *use) Decrypt(parameter []byte) error {
	return u.cfb(parameter, u.s.nonceTPM, u.nonceCaller, false)
}

func (u *use) cfb(data, newer, older []byte, encrypt bool) error {
	keyIV := kdfa256(u.s.keyed(u.auth), "CFB", newer, older)
	block, err := aes.NewCipher(keyIV[:16])
	if err != nil {
		return err
	}
	cfb128(block, keyIV[16:], data, encrypt)
	return nil
}

// cfb128 is AES-CFB with 128 bit feedback (SP 800-38A, 6.3), in place.
func cfb128(block cipher.Block, iv, data []byte, encrypt bool) {
	var stream, feedback [aes.BlockSize]byte
	copy(feedback[:], iv)
	for len(data) > 0 {
		block.Encrypt(stream[:], feedback[:])
		n := min(len(data), aes.BlockSize)
		for i := range n {
			c := data[i] ^ stream[i]
			if encrypt {
				feedback[i] = c
			} else {
				feedback[i] = data[i]
			}
			data[i] = c
		}
		data = data[n:]
	}
}

// cpHash is the command parameter hash (Part 1, 16.7).
func cpHash(cc tpm2.TPMCC, names []tpm2.TPM2BName, parms []byte) []byte {
	h := sha256.New()
	h.Write(binary.BigEndian.AppendUint32(nil, uint32(cc)))
	for _, n := range names {
		h.Write(n.Buffer)
	}
	h.Write(parms)
	return h.Sum(nil)
}

// rpHash is the response parameter hash (Part 1, 16.8).
func rpHash(rc tpm2.TPMRC, cc tpm2.TPMCC, parms []byte) []byte {
	h := sha256.New()
	h.Write(binary.BigEndian.AppendUint32(nil, uint32(rc)))
	h.Write(binary.BigEndian.AppendUint32(nil, uint32(cc)))
	h.Write(parms)
	return h.Sum(nil)
}

func sessionAttributes(b byte) tpm2.TPMASession {
	return tpm2.TPMASession{
		ContinueSession: b&attrContinue != 0,
		Decrypt:         b&attrDecrypt != 0,
		Encrypt:         b&attrEncrypt != 0,
		AuditExclusive:  b&0x02 != 0,
		AuditReset:      b&0x04 != 0,
		Audit:           b&0x80 != 0,
	}
}

// attributeBits is the octet that an answer's attributes were read from, but
// for reserved bits, with which the HMAC does not verify.
func attributeBits(a tpm2.TPMASession) byte {
	return bit(a.ContinueSession, attrContinue) | bit(a.AuditExclusive, 0x02) | bit(a.AuditReset, 0x04) |
		bit(a.Decrypt, attrDecrypt) | bit(a.Encrypt, attrEncrypt) | bit(a.Audit, 0x80)
}

func bit(set bool, b byte) byte {
	if set {
		return b
	}
	return 0
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails, see crypto/rand
	return b
}

// loadedSessions is how many sessions an attachment has at most: what a TPM must
// be able to load (TPM_PT_HR_LOADED_MIN). All are for HMAC, so that two commands
// are ready while a third is in the TPM, until a policy is used; from then on one
// of them is for policies.
const loadedSessions = 3

// A sessionPool keeps the sessions of one attachment.
type sessionPool struct {
	quota  *quota // of HMAC sessions
	policy *quota
	hmacs  chan *session // idle ones; room for all
	single chan *session // the idle policy session
	split  bool          // one of the sessions is for policies; of who has the unit of policy
}

func newSessionPool() *sessionPool {
	return &sessionPool{
		quota:  newQuota(loadedSessions),
		policy: newQuota(1),
		hmacs:  make(chan *session, loadedSessions),
		single: make(chan *session, 1),
	}
}

// borrow takes n HMAC sessions, starting those that are not there yet, and
// returns how to give them back.
func (a *attachment) borrow(ctx context.Context, n int) ([]*session, func(), error) {
	p := a.sessions
	if err := p.quota.acquire(ctx, n); err != nil {
		return nil, nil, a.waitError(err)
	}
	got := make([]*session, 0, n)
	giveBack := func() {
		for _, s := range got {
			a.putBack(p.hmacs, s)
		}
		p.quota.release(n)
	}
	for range n {
		s, err := a.idleOrNew(ctx, p.hmacs, tpm2.TPMSEHMAC)
		if err != nil {
			giveBack()
			return nil, nil, err
		}
		got = append(got, s)
	}
	return got, giveBack, nil
}

// borrowPolicy takes the policy session, in its initial state.
func (a *attachment) borrowPolicy(ctx context.Context) (*session, func(), error) {
	p := a.sessions
	if err := a.policyTurn(ctx); err != nil {
		return nil, nil, err
	}
	s, err := a.idleOrNew(ctx, p.single, tpm2.TPMSEPolicy)
	if err == nil && s.dirty {
		if err = a.policyRestart(s.handle); err != nil {
			s.uncertain = true
			a.putBack(p.single, s)
		}
	}
	if err != nil {
		p.policy.release(1)
		return nil, nil, err
	}
	s.dirty = true
	return s, func() { a.putBack(p.single, s); p.policy.release(1) }, nil
}

// policyTurn waits for the policy session to be free, which the caller then has to
// release. The first who comes takes the place of an HMAC session for it.
func (a *attachment) policyTurn(ctx context.Context) error {
	p := a.sessions
	if err := p.policy.acquire(ctx, 1); err != nil {
		return a.waitError(err)
	}
	if p.split {
		return nil
	}
	if err := p.quota.acquire(ctx, 1); err != nil {
		p.policy.release(1)
		return a.waitError(err)
	}
	p.quota.retire(1)
	p.split = true
	select {
	case s := <-p.hmacs:
		if err := a.flush(s.handle); err != nil {
			p.policy.release(1)
			return err
		}
	default: // it had not been started yet
	}
	return nil
}

func (a *attachment) idleOrNew(ctx context.Context, idle chan *session, kind tpm2.TPMSE) (*session, error) {
	select {
	case s := <-idle:
		return s, nil
	default:
		return a.newSaltedSession(ctx, kind)
	}
}

// newSaltedSession starts a session salted with the storage root key.
func (a *attachment) newSaltedSession(ctx context.Context, kind tpm2.TPMSE) (*session, error) {
	lease, err := a.slots.lease(ctx, 0, a.srk)
	if err != nil {
		return nil, err
	}
	defer lease.release()
	salt := lease.handle(0)
	return a.startSession(kind, &salt, a.srk.public)
}

// putBack keeps a session for the next caller, or flushes it when nobody can
// tell its state.
func (a *attachment) putBack(idle chan *session, s *session) {
	if !s.uncertain {
		idle <- s
		return
	}
	// If the flush fails too, the attachment is on its way out and the next
	// one flushes everything at start.
	_ = a.flush(s.handle)
}
