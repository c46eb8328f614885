// Package ingesttest runs feature tests (features/script) on the stream stage itself: records go to Kafka, the stage re-keys and
// applies them, expectations are read from Redis as serving reads them. The servers are embedded ones or any that are given; a test leaves
// nothing on them.
//
// Each test has the project to itself, under a name and topics of its own (project.LoadIsolated), with three partitions a topic. Records
// apply in the order of the script: before one goes to another partition than the last, the last must have been applied.
package ingesttest
