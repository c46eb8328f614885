package model

import "math"

// Task is what the score of a model means.
type Task string

// The tasks.
const (
	TaskBinary     Task = "binary"     // probability that the label holds
	TaskMulticlass Task = "multiclass" // a probability for each class
	TaskRegression Task = "regression" // the expected value, or the quantile trained for
	TaskPoisson    Task = "poisson"    // the expected count, above 0
	TaskRanking    Task = "ranking"    // a number that orders rows; its size means nothing
)

// Objective is what a forest was trained for, and so its link from margin to score.
type Objective string

// The objectives known. Names without a colon are LightGBM's, those with one XGBoost's; a forest is of the one or the
// other.
const (
	Binary             Objective = "binary"
	Multiclass         Objective = "multiclass"
	MulticlassOVA      Objective = "multiclassova"
	CrossEntropy       Objective = "cross_entropy"
	CrossEntropyLambda Objective = "cross_entropy_lambda"
	Regression         Objective = "regression"
	RegressionL1       Objective = "regression_l1"
	Huber              Objective = "huber"
	Fair               Objective = "fair"
	Quantile           Objective = "quantile"
	MAPE               Objective = "mape"
	Poisson            Objective = "poisson"
	Gamma              Objective = "gamma"
	Tweedie            Objective = "tweedie"
	LambdaRank         Objective = "lambdarank"
	RankXENDCG         Objective = "rank_xendcg"
)

// link makes scores of margins.
type link uint8

const (
	identity link = iota
	logistic      // 1/(1+exp(-steepness*margin)), for each output by itself
	softmax
	exponential
	signedSquare // margin*|margin|: LightGBM's regression with reg_sqrt
	softplus     // log(1+exp(margin))
)

// meaning is what an objective says of the scores.
type meaning struct {
	task Task
	link link
}

// lightGBMObjectives are src/objective/*.hpp: ConvertOutput of each.
var lightGBMObjectives = map[Objective]meaning{
	Binary: {TaskBinary, logistic}, CrossEntropy: {TaskBinary, logistic},
	Multiclass: {TaskMulticlass, softmax}, MulticlassOVA: {TaskMulticlass, logistic},
	CrossEntropyLambda: {TaskRegression, softplus},
	Regression:         {TaskRegression, identity}, RegressionL1: {TaskRegression, identity}, Huber: {TaskRegression, identity},
	Fair: {TaskRegression, identity}, Quantile: {TaskRegression, identity}, MAPE: {TaskRegression, identity},
	Poisson: {TaskPoisson, exponential}, Gamma: {TaskRegression, exponential}, Tweedie: {TaskRegression, exponential},
	LambdaRank: {TaskRanking, identity}, RankXENDCG: {TaskRanking, identity},
}

// xgboostObjectives are src/objective/*.cu: PredTransform of each. multi:softmax differs from multi:softprob in that
// XGBoost's predict answers with the class alone; the probabilities behind it are the same.
var xgboostObjectives = map[Objective]meaning{
	"binary:logistic": {TaskBinary, logistic}, "reg:logistic": {TaskBinary, logistic}, "binary:logitraw": {TaskRegression, identity},
	"multi:softprob": {TaskMulticlass, softmax}, "multi:softmax": {TaskMulticlass, softmax},
	"reg:squarederror": {TaskRegression, identity}, "reg:squaredlogerror": {TaskRegression, identity},
	"reg:absoluteerror": {TaskRegression, identity}, "reg:pseudohubererror": {TaskRegression, identity},
	"reg:quantileerror": {TaskRegression, identity}, "reg:expectileerror": {TaskRegression, identity},
	"count:poisson": {TaskPoisson, exponential}, "reg:gamma": {TaskRegression, exponential}, "reg:tweedie": {TaskRegression, exponential},
	"rank:pairwise": {TaskRanking, identity}, "rank:ndcg": {TaskRanking, identity}, "rank:map": {TaskRanking, identity},
}

// apply makes scores of margins, in place.
func (l link) apply(v []float64, steepness float64) {
	switch l {
	case identity:
	case logistic:
		for i, m := range v {
			v[i] = 1 / (1 + math.Exp(-steepness*m))
		}
	case softmax:
		toShares(v)
	case exponential:
		for i, m := range v {
			v[i] = math.Exp(m)
		}
	case signedSquare:
		for i, m := range v {
			v[i] = m * math.Abs(m)
		}
	case softplus:
		for i, m := range v {
			v[i] = math.Log1p(math.Exp(m))
		}
	}
}

// toShares is softmax. The largest margin is taken off first, so that nothing overflows.
func toShares(v []float64) {
	most := math.Inf(-1)
	for _, m := range v {
		most = max(most, m)
	}
	sum := 0.0
	for i, m := range v {
		v[i] = math.Exp(m - most)
		sum += v[i]
	}
	for i := range v {
		v[i] /= sum
	}
}
