// Package sqldb opens the databases of the services: an embedded SQLite file,
// or PostgreSQL when several nodes share one state. The same statements run on
// both.
//
// Statements are written with "?" for each argument. A question mark that is
// no argument does not occur in ours. [DB.Read] and [DB.Write] run one
// transaction; [DB.Batch] is for the small writes of a hot path: those that
// wait while a commit is being flushed share the next one, and one that fails
// takes back only itself, so that the rate is not bound to one flush per write.
// Whatever a method has done when it returns nil is on the disk.
//
// On SQLite a writing transaction takes the file's write lock when it begins,
// so everything read in it still holds when it commits. On PostgreSQL it runs
// at READ COMMITTED and must lock the rows that it decides on, with
// [Tx.ForUpdate]; transactions that PostgreSQL ends for a deadlock or a
// serialization failure are run again, so their functions must have no effect
// but through the Tx.
//
// Columns are INTEGER, TEXT, BLOB and REAL. A truth value is an INTEGER 0 or 1
// and a time is an INTEGER of microseconds, as PostgreSQL converts neither.
package sqldb
