package schemas

import (
	"embed"
	"sync"
)

//go:embed avsc/*.avsc avsc/earlier/*.avsc
var avsc embed.FS

// The codecs of our own events, each made when it is first needed and then shared: they are immutable.
var (
	predictionCodec = ownCodec[Prediction]("avsc/prediction.avsc", "avsc/earlier/prediction-1.avsc")
	driftCodec      = ownCodec[Drift]("avsc/drift.avsc")
	retrainCodec    = ownCodec[Retrain]("avsc/retrain.avsc")
	modelCodec      = ownCodec[ModelEvent]("avsc/model.avsc")
)

// ownCodec reads the schema in file, and those that files of earlier have: a topic outlives the release that wrote to it.
func ownCodec[E any](file string, earlier ...string) func() (*eventCodec[E], error) {
	return sync.OnceValues(func() (*eventCodec[E], error) {
		texts := make([][]byte, 0, 1+len(earlier))
		for _, name := range append([]string{file}, earlier...) {
			text, err := avsc.ReadFile(name)
			if err != nil {
				return nil, err
			}
			texts = append(texts, text)
		}
		return newEventCodec[E](texts[0], texts[1:]...)
	})
}

func marshal[E any](codec func() (*eventCodec[E], error), e *E) ([]byte, error) {
	c, err := codec()
	if err != nil {
		return nil, err
	}
	return c.encode(e)
}

func unmarshal[E any](codec func() (*eventCodec[E], error), b []byte) (e E, err error) {
	c, err := codec()
	if err != nil {
		return e, err
	}
	err = c.decode(b, &e)
	return e, err
}

// Marshal writes the event in Avro single-object encoding. Equal events give equal bytes.
func (e Prediction) Marshal() ([]byte, error) { return marshal(predictionCodec, &e) }

// UnmarshalPrediction reads what Marshal wrote; its error is a *RecordError. An empty list or map comes back as nil.
// One that was written before there were arms and classes has neither.
func UnmarshalPrediction(b []byte) (Prediction, error) { return unmarshal(predictionCodec, b) }

// Marshal writes the event in Avro single-object encoding. Equal events give equal bytes.
func (e Drift) Marshal() ([]byte, error) { return marshal(driftCodec, &e) }

// UnmarshalDrift reads what Marshal wrote; its error is a *RecordError. An empty list or map comes back as nil.
func UnmarshalDrift(b []byte) (Drift, error) { return unmarshal(driftCodec, b) }

// Marshal writes the event in Avro single-object encoding. Equal events give equal bytes.
func (e Retrain) Marshal() ([]byte, error) { return marshal(retrainCodec, &e) }

// UnmarshalRetrain reads what Marshal wrote; its error is a *RecordError.
func UnmarshalRetrain(b []byte) (Retrain, error) { return unmarshal(retrainCodec, b) }

// Marshal writes the event in Avro single-object encoding. Equal events give equal bytes.
func (e ModelEvent) Marshal() ([]byte, error) { return marshal(modelCodec, &e) }

// UnmarshalModelEvent reads what Marshal wrote; its error is a *RecordError. An empty list or map comes back as nil.
func UnmarshalModelEvent(b []byte) (ModelEvent, error) { return unmarshal(modelCodec, b) }
