// Package e2e is the end-to-end suite: the program as its users run it, role by role in processes of their own, on Kafka
// and Redis. It takes the servers' addresses from MILLRACE_TEST_KAFKA and MILLRACE_TEST_REDIS; where they are not set it
// starts the embedded ones, in the test's process. Neither way is anything skipped for it.
//
// What is taken away from a serving process (outage_redis_test.go, outage_kafka_test.go) is a server of the test's own: with MILLRACE_TEST_REDIS a
// redis-server, else the embedded one behind a proxy; with MILLRACE_KAFKA_UP a broker by that script, else the embedded one. The disk that
// disk_full_test.go fills is MILLRACE_TEST_SMALL_DISK: without it, that test alone is skipped.
//
// The crash matrix (chaos_test.go) is built with the tag chaos: it starts, breaks and stops servers of its own, a Kafka of three brokers
// by the script that MILLRACE_KAFKA_UP names and one redis-server or more for each case. make chaos runs it.
package e2e
