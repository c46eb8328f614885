package schemas

import "time"

// Topic is one Kafka topic: what it carries, who writes it and who reads it.
type Topic struct {
	Name       string        `json:"name"`
	Purpose    string        `json:"purpose"`
	Partitions int32         `json:"partitions"`
	Compact    bool          `json:"compact"`
	Retention  time.Duration `json:"retention"` // 0 keeps records for ever
	Key        string        `json:"key"`       // what the record key is
	Value      string        `json:"value"`     // what the record value is
	Producers  []string      `json:"producers"`
	Consumers  []string      `json:"consumers"`
}

// OwnSet is the topics that Millrace itself writes.
type OwnSet struct {
	Predictions, Shadows, Drift, Retrain, Models, DeadLetters Topic
}

// The roles that read and write topics, as Topic.Producers and Topic.Consumers name them.
const (
	RoleClients = "clients"
	RoleStream  = "stream"
	RoleServe   = "serve"
	RoleMonitor = "monitor"
	RoleTrain   = "train"
)

const day = 24 * time.Hour

// OwnTopics is the one declaration of Millrace's own topics. Verdicts and retrain requests are few and their order matters across
// models, so those topics have one partition; predictions and dead letters have as many as is asked for (at least 1).
func OwnTopics(prefix string, partitions int32) OwnSet {
	partitions = max(partitions, 1)
	return OwnSet{
		Predictions: Topic{
			Name: prefix + "predictions", Purpose: "every answer of a model, with its inputs and the positions they were read at",
			Partitions: partitions, Retention: 30 * day, Key: "join key of the label", Value: "avsc/prediction.avsc",
			Producers: []string{RoleServe}, Consumers: []string{RoleMonitor},
		},
		Shadows: Topic{
			Name: prefix + "shadows", Purpose: "what a shadow says of rows that others answered",
			Partitions: partitions, Retention: 30 * day, Key: "join key of the label", Value: "avsc/prediction.avsc",
			Producers: []string{RoleServe}, Consumers: []string{RoleClients},
		},
		Drift: Topic{
			Name: prefix + "drift", Purpose: "the monitor's verdict on each window, with its evidence",
			Partitions: 1, Retention: 90 * day, Key: "model", Value: "avsc/drift.avsc",
			Producers: []string{RoleMonitor}, Consumers: []string{RoleClients},
		},
		Retrain: Topic{
			Name: prefix + "retrain", Purpose: "requests for a new model",
			Partitions: 1, Retention: 90 * day, Key: "model", Value: "avsc/retrain.avsc",
			Producers: []string{RoleMonitor, RoleClients}, Consumers: []string{RoleTrain},
		},
		Models: Topic{
			Name: prefix + "models", Purpose: "the latest word on each model: promoted, refused, rolled back",
			Partitions: 1, Compact: true, Key: "model", Value: "avsc/model.avsc",
			Producers: []string{RoleTrain, RoleClients}, Consumers: []string{RoleServe, RoleMonitor},
		},
		DeadLetters: Topic{
			Name: prefix + "dead-letters", Purpose: "records that could not be applied: original bytes, where they came from and why",
			Partitions: partitions, Retention: 30 * day, Key: "original key", Value: "original bytes",
			Producers: []string{RoleStream, RoleServe, RoleMonitor, RoleTrain}, Consumers: []string{RoleClients},
		},
	}
}

// All is the set as a list, in the order of an event's way.
func (s OwnSet) All() []Topic {
	return []Topic{s.Predictions, s.Shadows, s.Drift, s.Retrain, s.Models, s.DeadLetters}
}
