// Package serving answers what a model says: over HTTP for a client that asks, and on the predictions topic for every
// record of the topic a model is on.
//
// Its place on an event's way is after features/online, which holds the entities' states, and registry, which holds the
// models; what it answers is what monitor watches. It meets the other stages only there and on topics, and only cmd may
// import it.
//
// A request goes through the files in this order: http.go (routes, limits, deadline), request.go (strict reading of the
// body), plan.go and fill.go (the row of the model's inputs, from one Redis round trip), ladder.go (who may answer),
// scorer.go (the model), answer.go, predictionlog.go. A record of a topic takes stream.go instead of the first two and
// writes its prediction and its offset in one Kafka transaction. deployment.go decides which model is live; follower.go
// tells it to look. A face of another protocol, in a package of its own, comes in by face.go.
//
// It refuses rather than guess: a request with an unknown, missing or ill-typed field (400, naming it), more rows or
// bytes than the limits (413), a row without the inputs that its model must have, without a champion, with features that
// could not be read in time (503, 504), and a model whose golden rows do not give the scores they were stored with,
// which never becomes live. Before a refusal comes what the project allows: the previous champion, then the declared
// default. Every answer says which of them gave it, and why.
//
// Delivery: a stream-scored prediction is on the topic exactly once for consumers that read committed records, and its
// id is a function of model, topic, partition and offset. HTTP answers are logged at most once: a full queue or a dead
// broker drops them, counted. A record that cannot be decoded is counted and passed over: the stage that computes
// features reads the same topic and sends it to the dead letters, once.
package serving
