package schemas

import "testing"

func TestOwnTopics(t *testing.T) {
	s := OwnTopics("x.", 8)
	names := map[string]Topic{}
	for _, topic := range s.All() {
		names[topic.Name] = topic
		if topic.Purpose == "" || topic.Key == "" || topic.Value == "" || len(topic.Producers) == 0 || len(topic.Consumers) == 0 {
			t.Errorf("%s is not wholly described: %+v", topic.Name, topic)
		}
	}
	for name, partitions := range map[string]int32{"x.predictions": 8, "x.drift": 1, "x.retrain": 1, "x.models": 1, "x.dead-letters": 8} {
		if names[name].Partitions != partitions {
			t.Errorf("%s has %d partitions, want %d", name, names[name].Partitions, partitions)
		}
	}
	if !s.Models.Compact || s.Predictions.Compact {
		t.Error("models alone is compacted")
	}
	for _, file := range []string{s.Predictions.Value, s.Drift.Value, s.Retrain.Value, s.Models.Value} {
		if _, err := avsc.ReadFile(file); err != nil {
			t.Error(err)
		}
	}
	if OwnTopics("", 0).Predictions.Partitions != 1 {
		t.Error("a topic without partitions")
	}
}
