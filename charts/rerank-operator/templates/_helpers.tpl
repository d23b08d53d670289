{{- define "rerank-operator.name" -}}
{{- if contains "rerank-operator" .Release.Name }}
{{- .Release.Name | trunc 53 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-rerank-operator" .Release.Name | trunc 53 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "rerank-operator.selector" -}}
app.kubernetes.io/name: rerank-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "rerank-operator.labels" -}}
{{ include "rerank-operator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- /* Exactly the calls the operator makes, in all namespaces or in one. */ -}}
{{- define "rerank-operator.rules" -}}
- apiGroups: [rerank.dev]
  resources: [rerankerservices]
  verbs: [list, watch]
- apiGroups: [rerank.dev]
  resources: [rerankerservices/status]
  verbs: [patch]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services, serviceaccounts, persistentvolumeclaims]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [keda.sh]
  resources: [scaledobjects]
  verbs: [get, list, create, patch, delete]
- apiGroups: [monitoring.coreos.com]
  resources: [podmonitors]
  verbs: [get, list, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [list, create]
{{- end }}
