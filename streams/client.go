package streams

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"

	"github.com/millrace/millrace/internal/failure"
)

// metadataMinAge is how soon the client may ask again where partitions are: a topic that was just created, or a leader that moved, is not
// waited for as long as the default of 5 s.
const metadataMinAge = 250 * time.Millisecond

// NewClient makes a Kafka client. It does not connect yet. Producing is idempotent, keyed records go where Kafka's default partitioner
// puts them, and a record is tried until it is in or the client is closed: opts can say otherwise.
func NewClient(c Config, opts ...kgo.Opt) (*kgo.Client, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	id := c.ClientID
	if id == "" {
		id = "millrace"
	}
	all := []kgo.Opt{
		kgo.SeedBrokers(c.Brokers...),
		kgo.ClientID(id),
		kgo.DisableClientMetrics(), // what a broker wants to know of us is not for the embedded one, and ours are on /metrics
		kgo.ProducerBatchCompression(codecs[c.Compression]),
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)),
		kgo.UnknownTopicRetries(-1),
		kgo.MetadataMinAge(metadataMinAge),
	}
	if c.TLS.Enabled {
		t, err := c.TLS.config()
		if err != nil {
			return nil, err
		}
		all = append(all, kgo.DialTLSConfig(t))
	}
	if mechanism, _ := c.SASL.mechanism(); mechanism != nil {
		all = append(all, kgo.SASL(mechanism))
	}
	client, err := kgo.NewClient(append(all, opts...)...)
	if err != nil {
		return nil, failure.Wrap(failure.Internal, "kafka", "making a client", err)
	}
	return client, nil
}

// Reach asks whether Kafka answers, and says what to do when it does not.
func Reach(ctx context.Context, c Config, client *kgo.Client) error {
	err := client.Ping(ctx)
	if err == nil {
		return nil
	}
	kind, hint := unreachable(err, c)
	return failure.Wrap(kind, "Kafka "+c.Brokers[0], "connecting", err).WithHint("%s", hint)
}

// unreachable says what an error of the first connection means.
func unreachable(err error, c Config) (kind failure.Kind, hint string) {
	var untrusted *tls.CertificateVerificationError
	var invalid x509.CertificateInvalidError
	var other x509.HostnameError
	var network net.Error
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return failure.BadProject, "renew the broker's certificate; or is this machine's clock wrong?"
	case errors.As(err, &other):
		return failure.BadProject, "name the brokers as their certificates do"
	case errors.As(err, &untrusted):
		return failure.BadProject, "name the authority of its certificate with --kafka-ca"
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		return failure.BadProject, "are --kafka-user and --kafka-password right?"
	case errors.Is(err, io.EOF) && c.SASL.Mechanism != "": // how some brokers say no
		return failure.Unavailable, "are --kafka-user, --kafka-password and --kafka-mechanism right?"
	case errors.Is(err, io.EOF):
		return failure.Unavailable, "does the listener want --kafka-tls or --kafka-mechanism?"
	case !c.TLS.Enabled && !errors.As(err, &network) && !errors.Is(err, context.Canceled): // an answer, and none of Kafka's: so TLS does to who does not speak it
		return failure.Unavailable, "does the listener want --kafka-tls?"
	}
	return failure.Unavailable, "is Kafka running, and is the address right?"
}

// NewRegistry makes the client of the schema registry; nil when there is none.
func NewRegistry(c Config) (*sr.Client, error) {
	if c.Registry.URL == "" {
		return nil, nil
	}
	opts := []sr.ClientOpt{sr.URLs(c.Registry.URL)}
	if c.Registry.Username != "" {
		opts = append(opts, sr.BasicAuth(c.Registry.Username, c.Registry.Password))
	}
	client, err := sr.NewClient(opts...)
	if err != nil {
		return nil, failure.Wrap(failure.BadProject, c.Registry.URL, "making a schema registry client", err)
	}
	return client, nil
}
