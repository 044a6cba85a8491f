// Command privyseal makes keys in PKCS#11 tokens and TPMs, and issues,
// presents and verifies credentials with them.
//
// Run "privyseal help" for the subcommands, "privyseal help config" for the
// configuration file and "privyseal help exit-codes" for what the program's
// exit status means.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/privyseal/privyseal/hsm"
)

func main() {
	hsm.WorkerMain() // returns at once unless we host a PKCS#11 module
	os.Exit(mainStatus())
}

// mainStatus is all of the program, so that deferred calls run before it exits.
func mainStatus() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return run(ctx, os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr})
}
