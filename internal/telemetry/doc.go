// Package telemetry is where the process counts and logs what it does:
// Prometheus metrics under the prefix "privyseal_", and slog with the id of the
// request that a line belongs to.
//
// Packages below the services stay free of it. They offer hooks, and whoever
// wires the program hands them the methods of [Metrics].
//
// Labels have few values: names that the configuration has, algorithms, result
// classes. Never a caller, a document or an error text.
package telemetry
