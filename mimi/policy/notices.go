package policy

import (
	"slices"

	"github.com/privyseal/privyseal/internal/tlsvec"
	"github.com/privyseal/privyseal/mimi"
)

// An Optionality says whether clients may, must or must not do something. The
// draft calls value 1 required in the enum and mandatory in its selects.
//
//	enum {
//	  optional(0),
//	  required(1),
//	  forbidden(2)
//	} Optionality;
type Optionality uint8

// The optionalities.
const (
	Optional  Optionality = 0
	Required  Optionality = 1
	Forbidden Optionality = 2
)

func readOptionality(r *tlsvec.Reader) Optionality { return readEnum(r, "optionality", Forbidden) }

// StatusNotificationPolicy is the value and the update of component
// status_notification_policy (0x0028, section 6.1).
//
//	struct {
//	  Optionality delivery_notifications;
//	  Optionality read_receipts;
//	} StatusNotificationPolicy;
type StatusNotificationPolicy struct {
	DeliveryNotifications Optionality
	ReadReceipts          Optionality
}

// Marshal returns the policy's encoding.
func (p *StatusNotificationPolicy) Marshal() []byte {
	return []byte{byte(p.DeliveryNotifications), byte(p.ReadReceipts)}
}

// ParseStatusNotificationPolicy decodes a status notification policy.
func ParseStatusNotificationPolicy(data []byte) (*StatusNotificationPolicy, error) {
	return parse("StatusNotificationPolicy", data, func(r *tlsvec.Reader) StatusNotificationPolicy {
		return StatusNotificationPolicy{readOptionality(r), readOptionality(r)}
	}, noRule)
}

// LoggingPolicy is the value and the update of component logging_policy
// (0x002D, section 6.5). With logging forbidden the other fields are not there.
//
//	struct {
//	  Optionality logging;
//	  select (logging) {
//	    case mandatory: case optional:
//	      Uri logging_clients<V>;
//	      Uri machine_readable_policy;
//	      Uri human_readable_policy;
//	    case forbidden:
//	      struct {};
//	  }
//	} LoggingPolicy;
type LoggingPolicy struct {
	Logging               Optionality
	LoggingClients        []string
	MachineReadablePolicy string
	HumanReadablePolicy   string
}

// Active reports whether the room is logged.
func (p *LoggingPolicy) Active() bool { return p.Logging != Forbidden && len(p.LoggingClients) > 0 }

// Marshal returns the policy's encoding.
func (p *LoggingPolicy) Marshal() []byte {
	return marshal(func(b *tlsvec.Builder) {
		b.Uint8(uint8(p.Logging))
		if p.Logging == Forbidden {
			return
		}
		appendList(b, p.LoggingClients, appendText)
		b.String(p.MachineReadablePolicy)
		b.String(p.HumanReadablePolicy)
	})
}

// ParseLoggingPolicy decodes a logging policy.
func ParseLoggingPolicy(data []byte) (*LoggingPolicy, error) {
	return parse("LoggingPolicy", data, func(r *tlsvec.Reader) LoggingPolicy {
		p := LoggingPolicy{Logging: readOptionality(r)}
		if p.Logging != Forbidden {
			p.LoggingClients = readList(r, maxList, readURI)
			p.MachineReadablePolicy, p.HumanReadablePolicy = readURI(r), readURI(r)
		}
		return p
	}, (*LoggingPolicy).check)
}

func (p *LoggingPolicy) check() error {
	if p.Logging == Required && len(p.LoggingClients) == 0 {
		return invalid("logging is required and there is no logging client")
	}
	if slices.Contains(p.LoggingClients, "") {
		return invalid("a logging client has no URI")
	}
	return nil
}

// HistoryPolicy is the value and the update of component chat_history_policy
// (0x002E, section 6.6). With sharing forbidden the other fields are not there.
//
//	struct {
//	  Optionality history_sharing;
//	  select (history_sharing) {
//	    case mandatory: case optional:
//	      uint32 roles_that_can_share<V>;
//	      bool automatically_share;
//	      uint32 max_time_period;
//	    case forbidden:
//	      struct {};
//	  }
//	} HistoryPolicy;
type HistoryPolicy struct {
	HistorySharing     Optionality
	RolesThatCanShare  []mimi.RoleIndex
	AutomaticallyShare bool
	MaxTimePeriod      uint32 // seconds
}

// Marshal returns the policy's encoding.
func (p *HistoryPolicy) Marshal() []byte {
	return marshal(func(b *tlsvec.Builder) {
		b.Uint8(uint8(p.HistorySharing))
		if p.HistorySharing == Forbidden {
			return
		}
		appendList(b, p.RolesThatCanShare, appendUint32)
		appendBool(b, p.AutomaticallyShare)
		b.Uint32(p.MaxTimePeriod)
	})
}

// ParseHistoryPolicy decodes a history policy. That the roles exist and may have
// clients is checked against the room's roles by Authorize.
func ParseHistoryPolicy(data []byte) (*HistoryPolicy, error) {
	return parse("HistoryPolicy", data, func(r *tlsvec.Reader) HistoryPolicy {
		p := HistoryPolicy{HistorySharing: readOptionality(r)}
		if p.HistorySharing != Forbidden {
			p.RolesThatCanShare = readList(r, maxRoles, readUint32[mimi.RoleIndex])
			p.AutomaticallyShare = readBool(r)
			p.MaxTimePeriod = r.Uint32()
		}
		return p
	}, (*HistoryPolicy).check)
}

func (p *HistoryPolicy) check() error {
	if slices.Contains(p.RolesThatCanShare, mimi.RoleNone) || slices.Contains(p.RolesThatCanShare, mimi.RoleBanned) {
		return invalid("roles 0 and 1 cannot share history")
	}
	return nil
}

// MessageExpiration is the value and the update of component
// message_expiration_policy (0x0030, section 6.8), in seconds. With expiration
// forbidden the other fields are not there.
//
//	struct {
//	  Optionality expiring_messages;
//	  select (expiring_messages) {
//	    case mandatory: case optional:
//	      uint32 min_expiration_duration;
//	      uint32 max_expiration_duration;
//	      optional uint32 default_expiration_duration;
//	    case forbidden:
//	      struct {};
//	  }
//	} MessageExpiration;
type MessageExpiration struct {
	ExpiringMessages          Optionality
	MinExpirationDuration     uint32
	MaxExpirationDuration     uint32
	DefaultExpirationDuration *uint32
}

// Marshal returns the policy's encoding.
func (p *MessageExpiration) Marshal() []byte {
	return marshal(func(b *tlsvec.Builder) {
		b.Uint8(uint8(p.ExpiringMessages))
		if p.ExpiringMessages == Forbidden {
			return
		}
		b.Uint32(p.MinExpirationDuration)
		b.Uint32(p.MaxExpirationDuration)
		appendOptional(b, p.DefaultExpirationDuration)
	})
}

// ParseMessageExpiration decodes a message expiration policy.
func ParseMessageExpiration(data []byte) (*MessageExpiration, error) {
	return parse("MessageExpiration", data, func(r *tlsvec.Reader) MessageExpiration {
		p := MessageExpiration{ExpiringMessages: readOptionality(r)}
		if p.ExpiringMessages != Forbidden {
			p.MinExpirationDuration, p.MaxExpirationDuration = r.Uint32(), r.Uint32()
			p.DefaultExpirationDuration = readOptional(r)
		}
		return p
	}, (*MessageExpiration).check)
}

func (p *MessageExpiration) check() error {
	if p.MaxExpirationDuration < p.MinExpirationDuration {
		return invalid("the longest expiration is below the shortest")
	}
	if d := p.DefaultExpirationDuration; d != nil && (*d < p.MinExpirationDuration || *d > p.MaxExpirationDuration) {
		return invalid("the default expiration is not between the shortest and the longest")
	}
	return nil
}

// A Bot is a chat bot that the room allows.
//
//	struct {
//	  opaque name<V>;
//	  opaque description<V>;
//	  Uri homepage;
//	  bool local_client_bot;
//	  uint32 bot_role_index;
//	  bool can_target_message_in_group;
//	  bool per_user_content;
//	} Bot;
type Bot struct {
	Name                    string
	Description             string
	Homepage                string
	LocalClientBot          bool
	RoleIndex               mimi.RoleIndex // 0: not an active participant
	CanTargetMessageInGroup bool
	PerUserContent          bool
}

// BotPolicy is the value and the update of component bot_policy (0x002F,
// section 6.7).
//
//	struct {
//	  Bot allowed_bots<V>;
//	} BotPolicy;
type BotPolicy struct {
	AllowedBots []Bot
}

func appendBot(b *tlsvec.Builder, v Bot) {
	b.String(v.Name)
	b.String(v.Description)
	b.String(v.Homepage)
	appendBool(b, v.LocalClientBot)
	b.Uint32(uint32(v.RoleIndex))
	appendBool(b, v.CanTargetMessageInGroup)
	appendBool(b, v.PerUserContent)
}

func readBot(r *tlsvec.Reader) Bot {
	return Bot{
		Name: readText(r, maxName), Description: readText(r, maxText), Homepage: readURI(r),
		LocalClientBot: readBool(r), RoleIndex: mimi.RoleIndex(r.Uint32()),
		CanTargetMessageInGroup: readBool(r), PerUserContent: readBool(r),
	}
}

// Marshal returns the policy's encoding.
func (p *BotPolicy) Marshal() []byte {
	return marshal(func(b *tlsvec.Builder) { appendList(b, p.AllowedBots, appendBot) })
}

// ParseBotPolicy decodes a bot policy.
func ParseBotPolicy(data []byte) (*BotPolicy, error) {
	return parse("BotPolicy", data, func(r *tlsvec.Reader) BotPolicy {
		return BotPolicy{readList(r, maxEntries, readBot)}
	}, (*BotPolicy).check)
}

func (p *BotPolicy) check() error {
	for _, bot := range p.AllowedBots {
		if bot.LocalClientBot && bot.RoleIndex != mimi.RoleNone {
			return invalid("bot %q is local to a client and has role %d", bot.Name, bot.RoleIndex)
		}
		if bot.RoleIndex == mimi.RoleBanned {
			return invalid("bot %q has the banned role", bot.Name)
		}
	}
	return nil
}
