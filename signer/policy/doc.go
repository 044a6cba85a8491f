// Package policy decides by rules whether a request may be signed.
//
// A rule is an expression in CEL over what was parsed from the request, who
// asks, for which key, and when. A [Policy] is a strict JSON file of such
// rules, compiled and type-checked when it is loaded:
//
//	{
//	  "version": 1,
//	  "rules": [
//	    {"id": "no-past-certificates", "effect": "deny",
//	     "when": "request.shape == 'certificate' && certificate.not_before < now - duration('1h')",
//	     "message": "certificates do not start in the past"},
//	    {"id": "bots-sign-messages", "effect": "allow",
//	     "when": ["key.purpose == 'mls-leaf'", "caller.name.startsWith('bot-')", "mls.content_type == 'application'"]}
//	  ]
//	}
//
// A deny rule that holds refuses the request, whatever else holds. Otherwise
// the first allow rule that holds lets it pass. Where none holds, or a rule
// cannot be decided, the request is refused. A policy only narrows what the
// purpose of a key permits, never widens it.
//
// The variables are the fields of [Input]. Variables of other shapes than the
// request's have zero values: mls.label of a JWS is empty. header and claims
// have what the sender put there: test with has(claims.sub) before use.
//
// The version of a policy is the SHA-256 of its file, and is recorded with each
// signature.
package policy
