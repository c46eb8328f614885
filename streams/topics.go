package streams

import (
	"context"
	"errors"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
)

// EnsureTopics creates the topics that are missing, with the brokers' default replication. Of a topic that exists the partition count is
// adopted, unless the topic is only between our own workers (keyed topics): entities are found by the declared count, so another
// one is BadProject.
//
// Retention counts from the record's timestamp, which is the event's time: a topic that is to hold a replayed past must keep records
// for ever, or the broker deletes them as they arrive.
func EnsureTopics(ctx context.Context, client *kgo.Client, topics []schemas.Topic) error {
	names := make([]string, len(topics))
	for i, t := range topics {
		names[i] = t.Name
	}
	existing, err := describe(ctx, client, names...)
	if err != nil {
		return err
	}
	var faults []error
	for _, t := range topics {
		if n, ok := existing[t.Name]; ok {
			faults = append(faults, checkPartitions(t, n))
		} else {
			faults = append(faults, create(ctx, kadm.NewClient(client), t))
		}
	}
	return errors.Join(faults...)
}

// describe gives the partition counts of those topics that exist. It asks the brokers: what the client remembers may be older than a topic that was
// created a moment ago.
func describe(ctx context.Context, client *kgo.Client, topics ...string) (map[string]int32, error) {
	request := kmsg.NewPtrMetadataRequest()
	for _, t := range topics {
		request.Topics = append(request.Topics, kmsg.MetadataRequestTopic{Topic: &t})
	}
	response, err := request.RequestWith(ctx, client)
	if err != nil {
		return nil, failure.Wrap(failure.Unavailable, "kafka", "describing topics", err).WithHint("is Kafka running, and is the address right?")
	}
	existing := map[string]int32{}
	for _, t := range response.Topics {
		switch err := kerr.ErrorForCode(t.ErrorCode); {
		case err == nil && t.Topic != nil:
			existing[*t.Topic] = int32(len(t.Partitions))
		case errors.Is(err, kerr.UnknownTopicOrPartition):
		default:
			return nil, failure.Wrap(failureOf(err), named(t.Topic), "describing the topic", err)
		}
	}
	return existing, nil
}

func named(name *string) string {
	if name == nil {
		return "kafka"
	}
	return *name
}

func checkPartitions(t schemas.Topic, have int32) error {
	if have == t.Partitions || !internal(t) {
		return nil
	}
	return failure.New(failure.BadProject, t.Name, "has %d partitions, %d are declared", have, t.Partitions).
		WithHint("declare %d, or delete the topic so that it is filled anew", have)
}

// internal reports whether only the stream role writes and reads the topic.
func internal(t schemas.Topic) bool {
	ours := func(roles []string) bool { return slices.Equal(roles, []string{schemas.RoleStream}) }
	return ours(t.Producers) && ours(t.Consumers)
}

func create(ctx context.Context, admin *kadm.Client, t schemas.Topic) error {
	configs := map[string]*string{"retention.ms": kadm.StringPtr("-1")}
	if t.Retention > 0 {
		configs["retention.ms"] = kadm.StringPtr(strconv.FormatInt(t.Retention.Milliseconds(), 10))
	}
	if t.Compact {
		configs["cleanup.policy"] = kadm.StringPtr("compact")
	}
	_, err := admin.CreateTopic(ctx, t.Partitions, -1, configs, t.Name)
	if err == nil || errors.Is(err, kerr.TopicAlreadyExists) { // another role was first
		return nil
	}
	return failure.Wrap(failure.Unavailable, t.Name, "creating the topic", err)
}

// Partitions is the partition count of a topic; NotFound when there is no such topic.
func Partitions(ctx context.Context, client *kgo.Client, topic string) (int32, error) {
	existing, err := describe(ctx, client, topic)
	if err != nil {
		return 0, err
	}
	n, ok := existing[topic]
	if !ok {
		return 0, failure.New(failure.NotFound, topic, "there is no such topic")
	}
	return n, nil
}
