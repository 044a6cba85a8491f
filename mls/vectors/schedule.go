package vectors

import "github.com/privyseal/privyseal/mls"

type keyScheduleVector struct {
	CipherSuite       mls.CipherSuite  `json:"cipher_suite"`
	GroupID           hexBytes         `json:"group_id"`
	InitialInitSecret hexBytes         `json:"initial_init_secret"`
	Epochs            []keyScheduleRow `json:"epochs"`
}

type keyScheduleRow struct {
	TreeHash                hexBytes `json:"tree_hash"`
	CommitSecret            hexBytes `json:"commit_secret"`
	PSKSecret               hexBytes `json:"psk_secret"`
	ConfirmedTranscriptHash hexBytes `json:"confirmed_transcript_hash"`
	GroupContext            hexBytes `json:"group_context"`
	JoinerSecret            hexBytes `json:"joiner_secret"`
	WelcomeSecret           hexBytes `json:"welcome_secret"`
	InitSecret              hexBytes `json:"init_secret"`
	SenderDataSecret        hexBytes `json:"sender_data_secret"`
	EncryptionSecret        hexBytes `json:"encryption_secret"`
	ExporterSecret          hexBytes `json:"exporter_secret"`
	EpochAuthenticator      hexBytes `json:"epoch_authenticator"`
	ExternalSecret          hexBytes `json:"external_secret"`
	ConfirmationKey         hexBytes `json:"confirmation_key"`
	MembershipKey           hexBytes `json:"membership_key"`
	ResumptionPSK           hexBytes `json:"resumption_psk"`
	ExternalPub             hexBytes `json:"external_pub"`
	Exporter                struct {
		Label   string   `json:"label"`
		Context hexBytes `json:"context"`
		Length  int      `json:"length"`
		Secret  hexBytes `json:"secret"`
	} `json:"exporter"`
}

func keySchedule(c *check, p mls.Primitives, v *keyScheduleVector) {
	init := []byte(v.InitialInitSecret)
	c.length("initial_init_secret", init, p)
	if len(v.Epochs) == 0 {
		c.fail("no epochs")
	}
	for i := range v.Epochs {
		init = checkEpoch(c, p, v.GroupID, uint64(i), init, &v.Epochs[i])
	}
}

func checkEpoch(c *check, p mls.Primitives, groupID []byte, epoch uint64, init []byte, e *keyScheduleRow) []byte {
	ctx := (&mls.GroupContext{
		Version: mls.MLS10, CipherSuite: p.CipherSuite(), GroupID: groupID, Epoch: epoch,
		TreeHash: e.TreeHash, ConfirmedTranscriptHash: e.ConfirmedTranscriptHash,
	}).Bytes()
	c.equal("group_context", ctx, e.GroupContext)
	joiner := p.JoinerSecret(init, e.CommitSecret, ctx)
	c.equal("joiner_secret", joiner, e.JoinerSecret)
	got := p.EpochSecrets(joiner, e.PSKSecret, ctx)
	c.equal("welcome_secret", got.Welcome, e.WelcomeSecret)
	c.equal("init_secret", got.Init, e.InitSecret)
	c.equal("sender_data_secret", got.SenderData, e.SenderDataSecret)
	c.equal("encryption_secret", got.Encryption, e.EncryptionSecret)
	c.equal("exporter_secret", got.Exporter, e.ExporterSecret)
	c.equal("epoch_authenticator", got.EpochAuthenticator, e.EpochAuthenticator)
	c.equal("external_secret", got.External, e.ExternalSecret)
	c.equal("confirmation_key", got.ConfirmationKey, e.ConfirmationKey)
	c.equal("membership_key", got.MembershipKey, e.MembershipKey)
	c.equal("resumption_psk", got.ResumptionPSK, e.ResumptionPSK)
	c.value("external_pub", e.ExternalPub)(p.ExternalPub(got.External))
	x := &e.Exporter
	c.value("exporter", x.Secret)(p.Export(got.Exporter, x.Label, x.Context, x.Length))
	return got.Init
}
