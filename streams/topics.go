package streams

import (
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
)

// ErrNoTopic is in what Partitions says of a topic that is not there, or of which the broker that was asked has not heard yet.
var ErrNoTopic = errors.New("there is no such topic")

// EnsureTopics creates the topics that are missing, with the brokers' default replication. Of a topic that exists the partition count is
// adopted, unless the topic is only between our own workers (keyed topics): entities are found by the declared count, so another
// one is BadProject. What it has created, every broker that answers knows of when it returns. Of a topic that was deleted a moment ago a
// broker may not have heard yet, and lets it pass for existing.
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
	var created []string
	for _, t := range topics {
		if d, ok := existing[t.Name]; ok {
			faults = append(faults, checkPartitions(t, d.partitions))
		} else {
			faults = append(faults, create(ctx, kadm.NewClient(client), t))
			created = append(created, t.Name)
		}
	}
	if err := errors.Join(faults...); err != nil || len(created) == 0 {
		return err
	}
	return awaitKnown(ctx, client, created)
}

// knownWithin is how long brokers may take to hear of a new topic: milliseconds as a rule.
const knownWithin = 30 * time.Second

// awaitKnown waits until each broker knows of the topics: the controller answers before they do, and what is asked of one that does not is
// refused. Brokers that do not answer are passed over.
func awaitKnown(ctx context.Context, client *kgo.Client, topics []string) error {
	ctx, cancel := context.WithTimeout(ctx, knownWithin)
	defer cancel()
	for _, broker := range client.DiscoveredBrokers() {
		for wait := time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
			known, err := describe(ctx, broker, topics...)
			var answer *kerr.Error
			if len(known) == len(topics) || err != nil && !errors.As(err, &answer) && ctx.Err() == nil {
				break
			}
			if failure.Of(err) == failure.BadProject {
				return err
			}
			select {
			case <-ctx.Done():
				return failure.Wrap(failure.Unavailable, strings.Join(topics, ", "), "waiting until every broker knows of the new topics", ctx.Err())
			case <-time.After(wait):
			}
		}
	}
	return nil
}

// described is what the brokers say of a topic.
type described struct {
	partitions int32
	id         string // empty where the brokers give topics none
}

// describe tells of those topics that exist. It asks the brokers: what the client remembers may be older than a topic that was
// created a moment ago.
func describe(ctx context.Context, of kmsg.Requestor, topics ...string) (map[string]described, error) {
	request := kmsg.NewPtrMetadataRequest()
	for _, t := range topics {
		request.Topics = append(request.Topics, kmsg.MetadataRequestTopic{Topic: &t})
	}
	response, err := request.RequestWith(ctx, of)
	if err != nil {
		return nil, failure.Wrap(failure.Unavailable, "kafka", "describing topics", err).WithHint("is Kafka running, and is the address right?")
	}
	existing := map[string]described{}
	for _, t := range response.Topics {
		switch err := kerr.ErrorForCode(t.ErrorCode); {
		case err == nil && t.Topic != nil:
			d := described{partitions: int32(len(t.Partitions))}
			if t.TopicID != [16]byte{} {
				d.id = base64.RawURLEncoding.EncodeToString(t.TopicID[:]) // as Kafka's own tools print it
			}
			existing[*t.Topic] = d
		case errors.Is(err, kerr.UnknownTopicOrPartition):
		default:
			return nil, failure.Wrap(failureOf(err), named(t.Topic), "describing the topic", err).WithHint("%s", hintOf(err))
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
	return failure.Wrap(failureOf(err), t.Name, "creating the topic", err).WithHint("%s", hintOf(err))
}

// Partitions is the partition count of a topic; NotFound when there is no such topic.
func Partitions(ctx context.Context, client *kgo.Client, topic string) (int32, error) {
	existing, err := describe(ctx, client, topic)
	if err != nil {
		return 0, err
	}
	d, ok := existing[topic]
	if !ok {
		return 0, failure.Wrap(failure.NotFound, topic, "describing the topic", ErrNoTopic)
	}
	return d.partitions, nil
}

// TopicIDs gives the IDs of those topics that exist and have one (KIP-516; brokers from Kafka 2.8 on give them). A topic that is deleted and created again
// has another, and its offsets are other records'.
func TopicIDs(ctx context.Context, client *kgo.Client, topics ...string) (map[string]string, error) {
	existing, err := describe(ctx, client, topics...)
	if err != nil {
		return nil, err
	}
	ids := make(map[string]string, len(existing))
	for name, d := range existing {
		if d.id != "" {
			ids[name] = d.id
		}
	}
	return ids, nil
}
