// Package e2e is the end-to-end suite: the program as its users run it, role by role in processes of their own, on Kafka
// and Redis. It takes the servers' addresses from MILLRACE_TEST_KAFKA and MILLRACE_TEST_REDIS; where they are not set it
// starts the embedded ones, in the test's process. Nothing is skipped either way.
package e2e
