// Package safehttp fetches from URLs that somebody else chose: key sets,
// revocation lists, status lists, assets. A [Client] speaks https (and http
// only where the caller says that the answer proves itself), connects only to
// public addresses unless configured otherwise, and bounds the time, the
// redirects and the octets of an answer, before and after inflation.
//
// The address is judged when the connection is made, after the name was
// resolved, so a name that resolves to another address the second time (DNS
// rebinding) gains nothing. There are no cookies, no proxies, no credentials
// and no Referer. Every error is an *[Error].
//
// It decides nothing about content: media types and signatures are the
// caller's.
package safehttp
