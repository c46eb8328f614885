package streams

import (
	"errors"
	"log/slog"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/internal/failure"
)

// failureOf is the kind of an error of the Kafka client: what the broker refuses for good is a fault of the project or of the set-up,
// everything else passes when Kafka is back.
func failureOf(err error) failure.Kind {
	for _, denied := range []error{kerr.TopicAuthorizationFailed, kerr.GroupAuthorizationFailed, kerr.ClusterAuthorizationFailed, kerr.SaslAuthenticationFailed, kerr.InvalidTopicException} {
		if errors.Is(err, denied) {
			return failure.BadProject
		}
	}
	return failure.Unavailable
}

// hintOf says what to do about an error of a request, where that is known.
func hintOf(err error) string {
	if errors.Is(err, kerr.TopicAuthorizationFailed) || errors.Is(err, kerr.GroupAuthorizationFailed) || errors.Is(err, kerr.ClusterAuthorizationFailed) {
		return "docs/kafka.md has the rights that --kafka-user needs"
	}
	return ""
}

// committed is a commit's callback that keeps the first error, of the request or of a partition.
func committed(first *error) func(*kgo.Client, *kmsg.OffsetCommitRequest, *kmsg.OffsetCommitResponse, error) {
	return func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, response *kmsg.OffsetCommitResponse, err error) {
		*first = err
		if response == nil {
			return
		}
		for _, t := range response.Topics {
			for _, p := range t.Partitions {
				if *first == nil {
					*first = kerr.ErrorForCode(p.ErrorCode)
				}
			}
		}
	}
}

// Logger has the Kafka client log its warnings and errors to log.
func Logger(log *slog.Logger) kgo.Opt { return kgo.WithLogger(clientLog{log}) }

type clientLog struct{ log *slog.Logger }

func (l clientLog) Level() kgo.LogLevel { return kgo.LogLevelWarn }

func (l clientLog) Log(level kgo.LogLevel, msg string, keyvals ...any) {
	if level == kgo.LogLevelError {
		l.log.Error(msg, keyvals...)
		return
	}
	l.log.Warn(msg, keyvals...)
}
