{{- define "octet.name" -}}
{{- .Values.fullnameOverride | default .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "octet.selector" -}}
app.kubernetes.io/name: octet
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "octet.labels" -}}
{{ include "octet.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- define "octet.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* ConfigMaps are read by more people than Secrets are. */}}
{{- define "octet.refuseSecret" -}}
{{- $value := index . 1 -}}
{{- if and $value (not (hasPrefix "${file:" (toString $value))) -}}
{{- $remedy := "keep it in the Secret of secretName, and write ${file:/run/secrets/octet/NAME}" -}}
{{- fail (printf "%s would stand in a ConfigMap: %s" (index . 0) $remedy) -}}
{{- end -}}
{{- end -}}

{{/* octet.yaml, or what the operator has still to decide. */}}
{{- define "octet.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- $server := $config.server | default dict -}}
{{- if not $config.upstreams -}}
{{- fail "config.upstreams is empty: say where calls go, as in octet.yaml" -}}
{{- end -}}
{{- if and (not $server.callers) (not .Values.openToAll) -}}
{{- fail "nobody is asked for a key: name callers in config.server.callers, or set openToAll: true" -}}
{{- end -}}
{{- if and $server.callers .Values.openToAll -}}
{{- fail "openToAll is true, and config.server.callers names callers: keep one of the two" -}}
{{- end -}}
{{- if or (hasKey $server "listen") (hasKey $server "admin") -}}
{{- fail "config.server.listen and config.server.admin are the chart's: set host and service.port" -}}
{{- end -}}
{{- range $server.callers -}}
{{- include "octet.refuseSecret" (list (printf "the key of caller %v" .name) .key) -}}
{{- end -}}
{{- range $name, $upstream := $config.upstreams -}}
{{- include "octet.refuseSecret" (list (printf "config.upstreams.%s.api_key" $name) $upstream.api_key) -}}
{{- end -}}
{{- include "octet.refuseSecret" (list "config.server.admin_token" $server.admin_token) -}}
{{- if regexMatch "://[^/]*:[^/]*@" .Values.redis.url -}}
{{- include "octet.refuseSecret" (list "the password in redis.url" .Values.redis.url) -}}
{{- end -}}
{{- if .Values.redis.url -}}
{{- $_ := set $config "redis" (merge (dict "url" .Values.redis.url) ($config.redis | default dict)) -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{/* What takes effect at a start alone, and so must bring one about. */}}
{{- define "octet.startOnly" -}}
{{- $config := include "octet.config" . | fromYaml -}}
{{- $cache := $config.cache | default dict -}}
{{- list (($config.server | default dict).workers) $config.redis $cache.redis $config.tracing | toJson | sha256sum -}}
{{- end -}}

{{/* How long calls may take to end, rounded up; without the key it is Octet's own default. */}}
{{- define "octet.drain" -}}
{{- $server := .Values.config.server | default dict -}}
{{- ternary $server.drain_seconds 20 (hasKey $server "drain_seconds") | ceil | int -}}
{{- end -}}

{{/* The longest that a pod may take to go, with 5 s to spare. */}}
{{- define "octet.grace" -}}
{{- $server := .Values.config.server | default dict -}}
{{- $delay := ternary $server.drain_delay_seconds 0 (hasKey $server "drain_delay_seconds") -}}
{{- add (ceil $delay | int) (include "octet.drain" . | int) 5 -}}
{{- end -}}
