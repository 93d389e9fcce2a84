{{- define "nllbd.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "nllbd.selector" -}}
app.kubernetes.io/name: nllbd
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: daemon
{{- end }}

{{- define "nllbd.labels" -}}
{{ include "nllbd.selector" . }}
app.kubernetes.io/part-of: nllbd
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "nllbd.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- define "nllbd.claim" -}}
{{- if .Values.models.existingClaim }}{{ .Values.models.existingClaim }}{{ else if .Values.models.create }}{{ include "nllbd.name" . }}-models{{ end }}
{{- end }}

{{- /* A value as TOML writes it: JSON's strings, numbers, booleans and lists are TOML's, too. */}}
{{- define "nllbd.toml" -}}
{{- if .Values.models.existingClaim | or .Values.models.create }}
model_dir = "/var/lib/nllbd/models"
{{- end }}
{{- range $name, $value := omit .Values.settings "model_dir" }}
{{ $name }} = {{ toJson $value }}
{{- end }}
{{- end }}

{{- /* What every pod of ours must fulfil: Pod Security "restricted". */}}
{{- define "nllbd.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "nllbd.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}
