package project

import (
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/duration"
	"github.com/millrace/millrace/schemas"
)

// KeyedRetention is how long keyed records are kept: long enough to rebuild Redis from, beyond that from the offline files.
const KeyedRetention = 7 * duration.Day

// Own is Millrace's own topics with this project's prefix, partitions and clock.
func (p *Project) Own() schemas.OwnSet {
	own := schemas.OwnTopics(p.TopicPrefix, p.Partitions)
	for _, t := range []*schemas.Topic{&own.Predictions, &own.Shadows, &own.Drift, &own.Retrain, &own.Models, &own.DeadLetters} {
		t.Retention = p.retention(t.Retention)
	}
	return own
}

// retention is for ever in a replayed past: Kafka compares a record's time with the machine's, and would drop all of it at once.
func (p *Project) retention(d time.Duration) time.Duration {
	if p.Clock == ClockEvent {
		return 0
	}
	return d
}

// Topology is every topic of the project with its producers and consumers, in the order of an event's way: the user's, the keyed
// ones, our own.
func (p *Project) Topology() []schemas.Topic {
	var topics []schemas.Topic
	for _, s := range p.Sources {
		if s.Merged() {
			continue
		}
		if s.Chained() {
			topics = append(topics, schemas.Topic{
				Name: s.Topic, Purpose: "source " + s.Name + ": what group " + s.Of.Name + " gives out", Partitions: s.Partitions, Retention: p.retention(KeyedRetention),
				Key: "entity of " + s.Of.Name, Value: "its columns as " + string(s.Format),
				Producers: []string{schemas.RoleStream}, Consumers: []string{schemas.RoleStream},
			})
			continue
		}
		topics = append(topics, schemas.Topic{
			Name: s.Topic, Purpose: "source " + s.Name, Partitions: s.Partitions, Key: s.Key, Value: s.SchemaFile + " as " + string(s.Format),
			Producers: []string{schemas.RoleClients}, Consumers: p.readers(s),
		})
	}
	for _, t := range p.Tables {
		if t.Topic != "" {
			topics = append(topics, schemas.Topic{
				Name: t.Topic, Purpose: "table " + t.Name, Partitions: p.Partitions, Compact: true, Key: t.Key, Value: t.SchemaFile + " as " + string(t.Format),
				Producers: []string{schemas.RoleClients}, Consumers: []string{schemas.RoleStream, schemas.RoleServe},
			})
		}
	}
	for _, g := range p.Groups {
		if g.Direct {
			continue
		}
		purpose, value := "records of source "+g.Source.Name, g.Source.SchemaFile+" as "+string(g.Source.Format)
		switch {
		case g.Source.Chained():
			value = "its columns as " + string(g.Source.Format)
		case g.Source.Merged():
			purpose, value = "records of sources "+strings.Join(g.Source.partNames(), ", "), "as on their topics"
		}
		topics = append(topics, schemas.Topic{
			Name: g.KeyedTopic, Purpose: purpose + " by the entity of group " + g.Name,
			Partitions: g.Source.Partitions, Retention: p.retention(KeyedRetention),
			Key: "entity of " + g.Name, Value: value,
			Producers: []string{schemas.RoleStream}, Consumers: []string{schemas.RoleStream},
		})
	}
	return append(topics, p.Own().All()...)
}

// readers are the roles that consume a source's topic.
func (p *Project) readers(s *Source) []string {
	roles := []string{schemas.RoleStream}
	if slices.ContainsFunc(p.Models, func(m *Model) bool { return m.On == s }) {
		roles = append(roles, schemas.RoleServe)
	}
	if slices.ContainsFunc(p.Models, func(m *Model) bool { return m.Label.Source == s }) {
		roles = append(roles, schemas.RoleMonitor)
	}
	return roles
}
