-- The table certificate, which is written in the same transactions, has them.
DROP INDEX credential_serial;
