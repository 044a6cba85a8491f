package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mimi/content"
	"github.com/privyseal/privyseal/mimi/identity"
	"github.com/privyseal/privyseal/mimi/policy"
)

// demoRooms is what the parts about rooms share.
type demoRooms struct {
	chain     []*x509.Certificate // of the rooms' CA, the root last
	crls      crlShelf
	clubhouse mimi.URI

	alice, laptop, bob, cathy *person
	abuse                     *client.Message // as Alice received it
}

// Roles of policy.ModeratedRoles.
const (
	demoSpeaker   mimi.RoleIndex = 4
	demoModerator mimi.RoleIndex = 5
)

// talk makes a room across the three providers and sends messages all ways.
func (d *demo) talk(ctx context.Context) (err error) {
	r := &d.rooms
	if r.clubhouse, err = mimi.ParseURI("mimi://a.example/r/clubhouse"); err != nil {
		return err
	}
	if r.alice, err = d.openPerson(ctx, "alice/phone@a.example", "softhsm"); err != nil {
		return err
	}
	d.did("alice/phone at a.example", "leaf and init keys in the SoftHSM token")
	if r.bob, err = d.openPerson(ctx, "bob/tablet@b.example", "tpm"); err != nil {
		return err
	}
	d.did("bob/tablet at b.example", "leaf and init keys in the TPM")
	if r.cathy, err = d.openRemote(ctx, "cathy/watch@c.example"); err != nil {
		return err
	}
	room, err := r.alice.CreateRoom(ctx, r.clubhouse, client.RoomOptions{
		Roles: policy.ModeratedRoles(), Role: demoModerator, Metadata: mimi.RoomMetaData{RoomName: "Clubhouse"},
	})
	if err != nil {
		return err
	}
	for _, p := range []*person{r.bob, r.cathy} {
		if _, err := room.Add(ctx, p.User(), client.AddOptions{Role: demoSpeaker}); err != nil {
			return err
		}
		if err := p.becomes(ctx, r.clubhouse, client.RoomMember); err != nil {
			return err
		}
	}
	d.did("room "+r.clubhouse.String(), "Alice added Bob and Cathy; KeyPackages claimed across providers")
	return d.allWays(ctx)
}

// allWays has everybody say something and everybody hear it.
func (d *demo) allWays(ctx context.Context) error {
	r := &d.rooms
	everybody := []*person{r.alice, r.bob, r.cathy}
	begin, heard := time.Now(), 0
	for _, from := range everybody {
		text := "hello from " + from.name
		if _, err := from.say(ctx, r.clubhouse, text); err != nil {
			return err
		}
		for _, to := range everybody {
			m, err := to.hears(ctx, r.clubhouse, text)
			if err != nil {
				return err
			}
			if m.Sender != from.User() || m.Level < identity.Issued {
				return fmt.Errorf("%s took %q for one of %s, %v", to.name, text, m.Sender, m.Level)
			}
			heard++
		}
	}
	d.did("three messages, each to everybody", "%d received, sender proven and frank verified each time, in %v", heard, time.Since(begin).Round(time.Millisecond))
	return nil
}

// secondDevice brings Alice's laptop in by an external commit.
func (d *demo) secondDevice(ctx context.Context) (err error) {
	r := &d.rooms
	if r.laptop, err = d.openPerson(ctx, "alice/laptop@a.example", "tpm"); err != nil {
		return err
	}
	if _, err := r.laptop.Join(ctx, r.clubhouse, client.JoinOptions{}); err != nil {
		return err
	}
	if _, err := r.laptop.say(ctx, r.clubhouse, "from my laptop"); err != nil {
		return err
	}
	for _, p := range []*person{r.alice, r.bob, r.cathy} {
		if _, err := p.hears(ctx, r.clubhouse, "from my laptop"); err != nil {
			return err
		}
	}
	d.did("alice/laptop joined by external commit", "its key is in the TPM; all others hear it")
	return d.agree(ctx)
}

// agree compares what the members hold of the epoch.
func (d *demo) agree(ctx context.Context) error {
	var epoch uint64
	var authenticator []byte
	for _, p := range []*person{d.rooms.alice, d.rooms.laptop, d.rooms.bob, d.rooms.cathy} {
		room, err := p.Room(ctx, d.rooms.clubhouse)
		if err != nil {
			return err
		}
		i, err := room.Info(ctx)
		if err != nil {
			return err
		}
		if authenticator != nil && !bytes.Equal(authenticator, i.Authenticator) {
			return fmt.Errorf("%s is in another epoch than the others", p.name)
		}
		epoch, authenticator = i.Epoch, i.Authenticator
	}
	d.did("all four clients agree", "epoch %d, authenticator %.8x…", epoch, authenticator)
	return nil
}

// abuseReports has the hub judge a true and a forged report.
func (d *demo) abuseReports(ctx context.Context) (err error) {
	r := &d.rooms
	if _, err := r.cathy.say(ctx, r.clubhouse, "something abusive"); err != nil {
		return err
	}
	if r.abuse, err = r.alice.hears(ctx, r.clubhouse, "something abusive"); err != nil {
		return err
	}
	room, err := r.alice.Room(ctx, r.clubhouse)
	if err != nil {
		return err
	}
	verdicts, err := room.ReportAbuse(ctx, []content.MessageID{r.abuse.ID}, "please look at this")
	if err != nil {
		return err
	}
	if len(verdicts) != 1 || !verdicts[0].Accepted {
		return fmt.Errorf("the hub does not know its own frank: %v", verdicts)
	}
	d.did("report of Cathy's message", "accepted: the frank proves that she sent exactly this")
	if verdicts, err = d.forgedReport(ctx, room); err != nil {
		return err
	}
	if len(verdicts) != 1 || verdicts[0].Accepted {
		return errors.New("the hub accepted a forged report")
	}
	d.refused("the same report with other words in her mouth", "refused: %s", verdicts[0].Reason)
	return nil
}

// forgedReport reports words that Cathy did not say, with a true frank.
func (d *demo) forgedReport(ctx context.Context, room *client.Room) (clientapi.AbuseVerdicts, error) {
	forged := *d.rooms.abuse.Evidence()
	// As many octets, so that only the words differ.
	forged.MessageContent = bytes.Replace(forged.MessageContent, []byte("something abusive"), []byte("something harmful"), 1)
	return room.SendAbuseReport(ctx, &mimi.AbuseReport{
		ReportingUser: d.rooms.alice.User(), AllegedAbuserURI: d.rooms.abuse.Sender, Messages: []mimi.AbusiveMessage{forged},
	})
}

// ban has Alice ban Cathy.
func (d *demo) ban(ctx context.Context) error {
	r := &d.rooms
	room, err := r.alice.Room(ctx, r.clubhouse)
	if err != nil {
		return err
	}
	done, err := room.Ban(ctx, r.cathy.User())
	if err != nil {
		return err
	}
	d.did("Alice bans Cathy", "out in epoch %d", done.Epoch)
	return d.shutOut(ctx, r.cathy, "her")
}

// shutOut has a client try to send, before it has learned that it is out, and
// then to come back. The hub must refuse both.
func (d *demo) shutOut(ctx context.Context, p *person, whose string) error {
	_, err := p.say(ctx, d.rooms.clubhouse, "one more thing")
	if err == nil {
		return fmt.Errorf("%s can still send", p.name)
	}
	d.refused(whose+" next message", "refused: %v", err)
	if err := p.becomes(ctx, d.rooms.clubhouse, client.RoomLeft); err != nil {
		return err
	}
	_, err = p.Join(ctx, d.rooms.clubhouse, client.JoinOptions{})
	if err == nil {
		return fmt.Errorf("%s could join again", p.name)
	}
	d.refused(whose+" external commit to come back", "refused: %v", err)
	return nil
}
