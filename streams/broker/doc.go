// Package broker is the Kafka that runs in this process when no other is given: franz-go's kfake with a data directory.
//
// What it keeps when the process is killed: every acknowledged record, every committed offset, every topic. Each is written to its
// file before the answer is sent, without waiting for the disk: the operating system has it then, and a process that dies, by
// SIGKILL too, takes nothing with it. A machine that loses power may lose the last seconds, as Kafka's own default would without
// replicas; for that there is the real Kafka.
//
// What it refuses: a directory that another process is using; a port that is taken.
//
// It may be imported by cmd and by tests.
package broker
