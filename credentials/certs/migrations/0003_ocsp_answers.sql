-- OCSP answers that were signed ahead, so that a restart while the key is away
-- leaves something to answer with.
CREATE TABLE ocsp_answer (
	issuer    BLOB NOT NULL,    -- SHA-256 of the issuer's SubjectPublicKeyInfo
	serial    TEXT NOT NULL,    -- lower-case hexadecimal
	hash      TEXT NOT NULL,    -- OID of the hash by which the CertID names the issuer
	responder BLOB NOT NULL,    -- hash of the key that signed
	status    BLOB NOT NULL,    -- CertStatus in DER
	produced  INTEGER NOT NULL, -- seconds; producedAt and thisUpdate
	validity  INTEGER NOT NULL, -- seconds from there to nextUpdate
	signature BLOB NOT NULL,    -- over the ResponseData that the rest makes
	PRIMARY KEY (issuer, serial, hash)
) STRICT;
CREATE INDEX ocsp_answer_produced ON ocsp_answer (issuer, produced);
